#!/usr/bin/env bash
# A real nginx as origin: plain, TLS, HTTP/2, redirects, ranges after a cut, validators, encodings, rate limits, a large file.
#
#   tests/origins.sh [MIB]     size of the large file; 300 by default, 3072 to be thorough (needs three times that on disk)
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/nginx.sh
. "$TESTS/nginx.sh"
mib=${1:-300}
needs "$PYTHON_GRPC" grpc

www=$WORK/files
start_origin "$www"
mkdir "$www/packed"
head -c 700000 /dev/urandom >"$www/file.bin"
for i in {0..39}; do head -c 100000 /dev/urandom >"$www/burst-$i.bin"; done
seq 1 50000 >"$www/text.txt"
cp "$www/text.txt" "$www/packed/text.txt"
gzip -9 -n "$www/packed/text.txt"
openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c $((mib << 20)) >"$www/large.bin" || [ -s "$www/large.bin" ]

declare -A PORT
for name in plain h2 h2_only http1 rate connections; do PORT[$name]=$(free_port); done
tls="ssl_certificate $WORK/certs/server.pem; ssl_certificate_key $WORK/certs/server.key; root $www;"
cat >"$WORK/servers.conf" <<N
gzip on;
gzip_min_length 1;
gzip_types *;
gzip_proxied any;
limit_req_zone \$server_name zone=requests:1m rate=20r/s;
limit_conn_zone \$server_name zone=connections:1m;
server {
  listen 127.0.0.1:${PORT[plain]};
  root $www;
  location /packed/ { gzip_static always; }
  location /slow/ { proxy_pass $HTTP; proxy_read_timeout 120s; }
  location = /r301 { return 301 /r302; }
  location = /r302 { return 302 /r303; }
  location = /r303 { return 303 /r307; }
  location = /r307 { return 307 http://\$http_host/r308; }
  location = /r308 { return 308 /file.bin; }
  location = /to-tls { return 302 https://127.0.0.1:${PORT[h2]}/file.bin; }
  location = /to-other-host { return 302 http://localhost:${PORT[plain]}/file.bin; }
  location = /to-itself { return 302 /to-itself; }
  location = /to-ftp { return 302 ftp://127.0.0.1/file.bin; }
}
server { listen 127.0.0.1:${PORT[h2]} ssl http2; $tls }
server { listen 127.0.0.1:${PORT[http1]} ssl; $tls }
server {
  listen 127.0.0.1:${PORT[h2_only]} ssl http2;
  if (\$server_protocol != HTTP/2.0) { return 505; }
  $tls
}
server {
  server_name rate;
  listen 127.0.0.1:${PORT[rate]};
  root $www;
  limit_req zone=requests burst=5 nodelay;
  limit_req_status 429;
  error_page 429 @later;
  location @later { add_header Retry-After 1 always; return 429; }
}
server {
  server_name connections;
  listen 127.0.0.1:${PORT[connections]};
  root $www;
  limit_rate 64k;
  limit_conn connections 8;
}
N
start_nginx "$www" "$WORK/servers.conf"

export ASSETGATE__FETCH__STALL_TIMEOUT=8s
start_cache embedded
start_assetgate gate "${CACHE_ARGS[@]}" --max-size 32GiB --origin-allow-cidr 127.0.0.0/8 --origin-ca "$CA"
ports=$(for name in "${!PORT[@]}"; do printf '%s=%s ' "$name" "${PORT[$name]}"; done)
step "fetches from nginx"
# shellcheck disable=SC2086 # a list of words
timeout 900 "$PYTHON_GRPC" "$TESTS/origins.py" "$STUBS" "$GRPC" "$www" "$LOGS/access.log" $ports || fail "origins.py ended with $?"
ok "every fetch from nginx"

step "without --origin-ca"
halt gate
rm -rf "$WORK/data"
start_assetgate gate "${CACHE_ARGS[@]}" --origin-allow-cidr 127.0.0.0/8
succeeds "a certificate nobody vouches for is refused" "$WORK/untrusted.txt" \
  "$PYTHON_GRPC" "$TESTS/origins.py" "$STUBS" "$GRPC" "$www" "$LOGS/access.log" untrusted="${PORT[h2]}"
