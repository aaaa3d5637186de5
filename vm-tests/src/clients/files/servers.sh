#!/bin/sh
# Starts one server of the matrix in the foreground: servers.sh NAME PORT, in the site's folder.
set -eu
name=$1 port=$2 folder=$PWD

case $name in
llm)
    exec /usr/bin/python3 llm_server.py "$port" ;;
nginx)
    /usr/bin/python3 make_files.py "$folder/files"
    exec nginx -c "$folder/nginx.conf" -e "$folder/nginx.err" ;;
fcgi)
    for path in allowed refused; do
        git init -q --bare "git/$path/hello.git"
        git -C "git/$path/hello.git" config http.receivepack true
    done
    git init -q first
    git -C first -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m "hello from the server"
    for path in allowed refused; do
        git -C first push -q "$folder/git/$path/hello.git" HEAD:refs/heads/main
        git -C "git/$path/hello.git" symbolic-ref HEAD refs/heads/main
    done
    exec fcgiwrap -s "unix:$folder/fcgi.sock" ;;
grpc|ws)
    : >> seen.log
    exec "$TOOLS/venv/bin/python3" "${name}_server.py" "$port" server.pem server.key seen.log ;;
sshd)
    mkdir -p /run/sshd
    ssh-keygen -q -t ed25519 -N "" -f host_key
    ssh-keygen -q -t ed25519 -N "" -f shared/client_key
    chmod 644 shared/client_key.pub
    cat > sshd_config <<END
ListenAddress 127.0.0.1
Port $port
HostKey $folder/host_key
AuthorizedKeysFile $folder/shared/client_key.pub
PidFile $folder/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
LogLevel INFO
END
    # -D: in the foreground; -E: who came.
    exec "$(command -v sshd)" -D -f "$folder/sshd_config" -E "$folder/sshd.log" ;;
postgres)
    bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
    install -d -o postgres "$folder/pg"
    as='setpriv --reuid=postgres --regid=postgres --clear-groups --'
    $as "$bin/initdb" -D "$folder/pg/data" -A trust -U postgres --no-sync > /dev/null
    : > postgres.log
    chown postgres postgres.log
    exec $as "$bin/postgres" -D "$folder/pg/data" -c listen_addresses=127.0.0.1 -p "$port" \
        -c unix_socket_directories= -c fsync=off -c log_connections=on >> postgres.log 2>&1 ;;
mariadb)
    install -d -o mysql "$folder/mysql"
    mariadb-install-db --user=mysql --datadir="$folder/mysql" --skip-test-db --auth-root-authentication-method=normal > /dev/null 2>&1
    : > mariadb.log
    chown mysql mariadb.log
    exec mariadbd --no-defaults --user=mysql --datadir="$folder/mysql" --bind-address=127.0.0.1 --port="$port" \
        --socket="$folder/mysql/socket" --skip-grant-tables --skip-networking=0 \
        --general-log --general-log-file="$folder/mariadb.log" ;;
redis)
    : > redis.log
    exec redis-server --bind 127.0.0.1 --port "$port" --save "" --appendonly no --loglevel verbose --logfile "$folder/redis.log" ;;
esac
