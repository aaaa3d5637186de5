# haproxy answers by itself, as a gateway that somebody put in front of an application reads.
cat > conf <<END
global
    log stdout format raw local0
defaults
    mode http
    timeout client 30s
    timeout connect 5s
    timeout server 30s
frontend all
    bind 127.0.0.1:$PORT${TLS:+ ssl crt $FOLDER/both.pem alpn h2,http/1.1}
    log global
    http-request capture req.hdr(host) len 200
    log-format "SEEN %HM %HU %HV|%[capture.req.hdr(0)]"
    http-request return status 200 content-type text/plain string "ok)"
END
exec haproxy -db -f "$FOLDER/conf" > "$FOLDER/seen"
