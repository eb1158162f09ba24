#!/bin/sh
# Creates a certificate authority, certificates for the servers and their callers, and a token, unless
# they exist. The servers reload what these commands change:
#   renew            new certificates from the same authority
#   new-token        another token, first in the file, which the client uses
#   drop-old-tokens  removes all but the first
# For trials and private networks. Elsewhere, put the certificates of your own authority into
# /certificates.
set -eu
umask 077
authority=/authority certificates=/certificates days=${MLPSERVE_TLS_DAYS:-90}
names=${MLPSERVE_TLS_NAMES:-DNS:server-tls,DNS:localhost,IP:127.0.0.1}

issue() {  # issue NAME USAGE SUBJECT_ALTERNATIVE_NAMES: each file appears complete or not at all
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
    -keyout "$certificates/.$1.key" -out /tmp/request 2>/tmp/log || { cat /tmp/log >&2; exit 1; }
  printf 'extendedKeyUsage=%s\nsubjectAltName=%s\n' "$2" "$3" >/tmp/extensions
  openssl x509 -req -in /tmp/request -days "$days" -extfile /tmp/extensions \
    -CA "$authority/ca.crt" -CAkey "$authority/ca.key" -out "$certificates/.$1.crt" 2>/dev/null
  mv "$certificates/.$1.key" "$certificates/$1.key"
  mv "$certificates/.$1.crt" "$certificates/$1.crt"
  echo "made $1.crt, valid for $days days"
}

if [ ! -e "$certificates/tls.crt" ] && [ ! -e "$authority/ca.key" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=mlpserve authority" -keyout "$authority/ca.key" -out "$authority/ca.crt" 2>/dev/null
fi
if [ "${1:-}" = renew ] || [ ! -e "$certificates/tls.crt" ]; then
  # The server checks its own health, as a client.
  issue tls serverAuth,clientAuth "$names"
  issue client clientAuth DNS:client
  cp "$authority/ca.crt" "$certificates/.ca.crt"
  mv "$certificates/.ca.crt" "$certificates/ca.crt"
fi
write_tokens() {  # from standard input, complete or not at all
  cat >"$certificates/.tokens"
  mv "$certificates/.tokens" "$certificates/tokens"
  echo "$(wc -l <"$certificates/tokens") token(s) in force"
}

case ${1:-} in
  new-token) { openssl rand -hex 32; cat "$certificates/tokens"; } | write_tokens ;;
  drop-old-tokens) head -n 1 "$certificates/tokens" | write_tokens ;;
  *) if [ ! -e "$certificates/tokens" ]; then openssl rand -hex 32 | write_tokens; fi ;;
esac
