#!/usr/bin/env bash
# Makes a throw-away CA with a server and a client certificate.
#
#   tests/certs.sh DIR      writes ca.pem, server.pem, server.key, client.pem, client.key into DIR
#
# The server's names are localhost, 127.0.0.1 and ::1. Everything is valid for two days.
set -euo pipefail
dir=${1:?usage: certs.sh DIR}
command -v openssl >/dev/null || { echo "openssl is missing (Debian: openssl)" >&2; exit 1; }
mkdir -p "$dir"
cd "$dir"

key() { openssl ecparam -name prime256v1 -genkey -noout 2>/dev/null | openssl pkcs8 -topk8 -nocrypt -out "$1"; }

# issue NAME SUBJECT EXTENSIONS
issue() {
  key "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -sha256 \
    -extfile <(printf '%b' "$3") -out "$1.pem" 2>/dev/null
  rm "$1.csr"
}

key ca.key
openssl req -x509 -new -key ca.key -days 2 -sha256 -subj "/CN=Assetgate test CA" -out ca.pem \
  -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
issue server localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n'
issue client tester 'extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n'
