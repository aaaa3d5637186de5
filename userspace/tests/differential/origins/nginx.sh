# nginx answers whatever it is asked.
cat > conf <<END
daemon off;
master_process off;
pid $FOLDER/pid;
error_log $FOLDER/error;
events { }
http {
    log_format seen '\$request|\$http_host';
    client_body_temp_path $FOLDER/body;
    proxy_temp_path $FOLDER/proxy;
    fastcgi_temp_path $FOLDER/fastcgi;
    uwsgi_temp_path $FOLDER/uwsgi;
    scgi_temp_path $FOLDER/scgi;
    server {
        listen 127.0.0.1:$PORT${TLS:+ ssl http2};
        ${TLS:+ssl_certificate $FOLDER/cert.pem; ssl_certificate_key $FOLDER/key.pem;}
        access_log $FOLDER/seen seen;
        location / { return 200 "ok)"; }
    }
}
END
exec nginx -c "$FOLDER/conf" -e "$FOLDER/error"
