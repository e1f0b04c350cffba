# shellcheck shell=bash
# A real nginx as origin. Sourced after lib.sh.
# shellcheck disable=SC2034 # the scripts that source this use what it sets

needs nginx apt

# start_nginx DIR [CONF]: nginx with the server blocks of CONF (a file), on whose ports the caller knows; without CONF one
# that serves DIR as it is, and then sets NGINX (its base URL). Access log: logs/access.log, a JSON object per request.
start_nginx() {
  local conf=${2:-} port
  mkdir -p "$1" "$WORK/nginx"
  port=$(free_port)
  if [ -z "$conf" ]; then
    conf=$WORK/nginx/plain.conf NGINX=http://127.0.0.1:$port
    printf 'server { listen 127.0.0.1:%s; root %s; }\n' "$port" "$1" >"$conf"
  else
    port=$(sed -n 's/^ *listen 127.0.0.1:\([0-9]*\).*/\1/p' "$conf" | head -n 1)
  fi
  cat >"$WORK/nginx/nginx.conf" <<N
daemon off;
worker_processes 1;
pid $WORK/nginx/pid;
error_log $LOGS/nginx-errors.log warn;
$([ "$(id -u)" != 0 ] || echo "user root;")
events { worker_connections 4096; }
http {
  log_format json escape=json '{"path":"\$request_uri","status":\$status,"sent":\$body_bytes_sent,"protocol":"\$server_protocol",'
    '"port":"\$server_port","range":"\$http_range","if_range":"\$http_if_range","accept_encoding":"\$http_accept_encoding",'
    '"if_none_match":"\$http_if_none_match","if_modified_since":"\$http_if_modified_since",'
    '"authorization":"\$http_authorization","at":\$msec,"took":\$request_time}';
  access_log $LOGS/access.log json;
  default_type application/octet-stream;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path $WORK/nginx/body;
  proxy_temp_path $WORK/nginx/proxy;
  fastcgi_temp_path $WORK/nginx/fastcgi;
  uwsgi_temp_path $WORK/nginx/uwsgi;
  scgi_temp_path $WORK/nginx/scgi;
  include $conf;
}
N
  spawn nginx nginx -c "$WORK/nginx/nginx.conf" -e "$LOGS/nginx-errors.log"
  wait_for 20 nginx listening "$port"
}
