# Apache in one process; it has no files, and what it answers does not matter.
modules=/usr/lib/apache2/modules
cat > conf <<END
ServerRoot $FOLDER
ServerName api.test
PidFile $FOLDER/pid
Listen 127.0.0.1:$PORT
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
ErrorLog $FOLDER/error
LogFormat "%r|%{Host}i" seen
CustomLog $FOLDER/seen seen
DocumentRoot $FOLDER
ErrorDocument 404 "ok)"
${TLS:+LoadModule ssl_module $modules/mod_ssl.so
LoadModule http2_module $modules/mod_http2.so
SSLEngine on
SSLCertificateFile $FOLDER/cert.pem
SSLCertificateKeyFile $FOLDER/key.pem
Protocols h2 http/1.1}
END
exec apache2 -X -f "$FOLDER/conf"
