//! The clients, as data. Each script is what a person would type; `$P` is the folder of the small
//! programs that stand for people's own, `$WORK` one to write to, `$TOOLS` where clients from PyPI,
//! npm and crates.io were installed.

/// How it is known that the right call reached the server, and the refused one did not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// Each line of the web servers' log about hosts that begin so says that the credential came.
    Credential(&'static str),
    /// The log of a server to which there is nothing to attach has an entry.
    Reached(&'static str),
}

/// One row of the matrix.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// Where it is from.
    pub(super) from: &'static str,
    /// Programs, files and servers.
    pub(super) needs: &'static [&'static str],
    pub(super) allowed: &'static str,
    /// What the allowed call prints at least.
    pub(super) prints: &'static str,
    pub(super) proof: Proof,
    pub(super) refused: &'static str,
    /// What the client shows of the reason.
    pub(super) shows: &'static str,
    /// The refused call ends with an error.
    pub(super) fails: bool,
    /// What the calls are, in words.
    pub(super) call: &'static str,
    /// What makes it trust the session's authority.
    pub(super) trust: &'static str,
}

const SYSTEM: &str = "the system's bundle";
const NONE: &str = "not TLS";

/// A client that asks nginx for files with the bearer credential, and fails on a refusal.
const WEB: Client = Client {
    name: "",
    from: "Debian",
    needs: &[],
    allowed: "",
    prints: "hello from the server",
    proof: Proof::Credential(""),
    refused: "",
    shows: "no_rule",
    fails: true,
    call: "GET",
    trust: SYSTEM,
};

/// A client of a protocol that egret passes on unread.
const OPAQUE: Client = Client { prints: "hello", trust: NONE, ..WEB };

pub(super) const CLIENTS: &[Client] = &[
    Client {
        name: "curl, HTTP/1.1",
        needs: &["curl", "nginx"],
        allowed: "curl -sS --http1.1 https://api.test/allowed/hello",
        refused: "curl -sS --http1.1 https://api.test/refused/hello",
        fails: false,
        ..WEB
    },
    Client {
        name: "curl, HTTP/2",
        needs: &["curl", "nginx"],
        allowed: "curl -sS --http2 -w 'HTTP/%{http_version}' https://api.test/allowed/hello | tee $WORK/h2; grep -q HTTP/2 $WORK/h2",
        refused: "curl -sS --http2 https://api.test/refused/hello",
        fails: false,
        ..WEB
    },
    Client {
        name: "wget",
        needs: &["wget", "nginx"],
        allowed: "wget -qO- https://api.test/allowed/hello",
        refused: "wget -O- https://api.test/refused/hello",
        ..WEB
    },
    Client {
        name: "openssl s_client",
        needs: &["openssl", "nginx"],
        allowed: "printf 'GET /allowed/hello HTTP/1.1\\r\\nHost: api.test\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -connect api.test:443",
        refused: "printf 'GET /refused/hello HTTP/1.1\\r\\nHost: api.test\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error -connect api.test:443",
        fails: false,
        ..WEB
    },
    Client {
        name: "git over https",
        needs: &["git", "nginx", "fcgi"],
        allowed: "cd $WORK && rm -rf clone && git clone -q https://git.test/allowed/hello.git clone && cd clone && git log --format=%s && git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m more && git push -q",
        proof: Proof::Credential("git.test"),
        refused: "cd $WORK && git clone https://git.test/refused/hello.git refused",
        call: "clone and push",
        trust: "the system's bundle, GIT_SSL_CAINFO",
        ..WEB
    },
    Client {
        name: "git over ssh",
        needs: &["git", "ssh", "sshd", "fcgi"],
        allowed: "cd $WORK && rm -rf clone && export GIT_SSH_COMMAND=\"ssh -i $WORK/client_key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=$WORK/known\" && git clone -q root@ssh.test:$P/git/allowed/hello.git clone && git -C clone log --format=%s",
        refused: "cd $WORK && export GIT_SSH_COMMAND=\"ssh -i $WORK/client_key -o StrictHostKeyChecking=no -o UserKnownHostsFile=$WORK/known\" && git clone root@no-ssh.test:$P/git/allowed/hello.git refused",
        proof: Proof::Reached("sshd.log"),
        call: "clone",
        ..OPAQUE
    },
    Client {
        name: "OpenSSH",
        needs: &["ssh", "sshd"],
        allowed: "ssh -i $WORK/client_key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=$WORK/known root@ssh.test echo hello",
        refused: "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=$WORK/known root@no-ssh.test echo hello",
        proof: Proof::Reached("sshd.log"),
        call: "a command",
        ..OPAQUE
    },
    Client {
        name: "pip",
        from: "PyPI",
        needs: &["venv/bin/pip", "nginx"],
        allowed: "cd $WORK && $TOOLS/venv/bin/pip download --no-deps --no-cache-dir --disable-pip-version-check -d pip --index-url https://pypi.test/allowed/simple/ hello-egret",
        prints: "hello_egret-1.0-py3-none-any.whl",
        refused: "cd $WORK && $TOOLS/venv/bin/pip download --no-deps --no-cache-dir --disable-pip-version-check -d pip2 --retries 0 https://pypi.test/refused/simple/hello-egret/hello_egret-1.0-py3-none-any.whl",
        call: "download",
        trust: "PIP_CERT",
        ..WEB
    },
    Client {
        name: "uv",
        from: "PyPI",
        needs: &["venv/bin/uv", "nginx"],
        allowed: "cd $WORK && $TOOLS/venv/bin/uv pip install --no-cache --python /usr/bin/python3 --target uv --index-url https://pypi.test/allowed/simple/ hello-egret",
        prints: "hello-egret==1.0",
        refused: "cd $WORK && $TOOLS/venv/bin/uv pip install --no-cache --python /usr/bin/python3 --target uv2 https://pypi.test/refused/simple/hello-egret/hello_egret-1.0-py3-none-any.whl",
        shows: "egress denied (no_rule)",
        call: "install",
        trust: "SSL_CERT_FILE",
        ..WEB
    },
    Client {
        name: "npm",
        needs: &["npm", "nginx"],
        allowed: "mkdir -p $WORK/npm && cd $WORK/npm && npm install --cache $WORK/npmcache --no-audit --no-fund --no-update-notifier --registry https://npm.test/allowed/ hello-egret && ls node_modules",
        prints: "hello-egret",
        refused: "mkdir -p $WORK/npm2 && cd $WORK/npm2 && npm install --cache $WORK/npmcache2 --no-audit --no-fund --no-update-notifier --fetch-retries 0 --registry https://npm.test/refused/ hello-egret",
        call: "install",
        from: "Node.js",
        trust: "NODE_EXTRA_CA_CERTS",
        ..WEB
    },
    Client {
        name: "Node fetch",
        from: "Node.js",
        needs: &["node", "nginx"],
        allowed: "node $P/fetch.mjs fetch https://api.test/allowed/hello",
        refused: "node $P/fetch.mjs fetch https://api.test/refused/hello",
        trust: "NODE_EXTRA_CA_CERTS",
        ..WEB
    },
    Client {
        name: "undici",
        from: "npm",
        needs: &["node", "node/node_modules/undici", "nginx"],
        allowed: "node $P/fetch.mjs undici https://api.test/allowed/hello",
        refused: "node $P/fetch.mjs undici https://api.test/refused/hello",
        trust: "NODE_EXTRA_CA_CERTS",
        ..WEB
    },
    Client {
        name: "axios",
        from: "npm",
        needs: &["node", "node/node_modules/axios", "nginx"],
        allowed: "node $P/fetch.mjs axios https://api.test/allowed/hello",
        refused: "node $P/fetch.mjs axios https://api.test/refused/hello",
        trust: "NODE_EXTRA_CA_CERTS",
        ..WEB
    },
    Client {
        name: "cargo",
        from: "rustup",
        needs: &["cargo", "nginx"],
        allowed: "cd $WORK && rm -rf crate && mkdir -p crate/src crate/.cargo && : > crate/src/lib.rs && printf '[package]\\nname = \"a\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\nhello-egret = { version = \"1\", registry = \"local\" }\\n' > crate/Cargo.toml && printf '[registries.local]\\nindex = \"sparse+https://crates.test/allowed/index/\"\\n' > crate/.cargo/config.toml && cd crate && PATH=\"$(dirname $REAL_CARGO):$PATH\" CARGO_HOME=$WORK/cargo $REAL_CARGO fetch && ls $WORK/cargo/registry/src/*",
        prints: "hello-egret-1.0.0",
        refused: "cd $WORK/crate && printf '[registries.local]\\nindex = \"sparse+https://crates.test/refused/index/\"\\n' > .cargo/config.toml && rm -f Cargo.lock && PATH=\"$(dirname $REAL_CARGO):$PATH\" CARGO_HOME=$WORK/cargo2 $REAL_CARGO fetch",
        call: "fetch",
        trust: "CARGO_HTTP_CAINFO",
        ..WEB
    },
    Client {
        name: "apt",
        needs: &["apt-get", "nginx", "dpkg-deb"],
        allowed: "mkdir -p $WORK/apt/lists/partial $WORK/apt/archives/partial && cd $WORK/apt && echo 'deb [trusted=yes arch=amd64] https://debian.test/allowed stable main' > list && : > status && O=\"-o Dir::Etc::sourcelist=$WORK/apt/list -o Dir::Etc::sourceparts=- -o Dir::State=$WORK/apt -o Dir::State::lists=$WORK/apt/lists -o Dir::State::status=$WORK/apt/status -o Dir::Cache=$WORK/apt -o APT::Sandbox::User=root -o Debug::NoLocking=1\" && apt-get $O update && apt-get $O download hello-egret && ls",
        prints: "hello-egret_1.0_all.deb",
        refused: "cd $WORK/apt && echo 'deb [trusted=yes arch=amd64] https://debian.test/refused stable main' > list && apt-get -o Dir::Etc::sourcelist=$WORK/apt/list -o Dir::Etc::sourceparts=- -o Dir::State=$WORK/apt -o Dir::State::lists=$WORK/apt/lists -o Dir::State::status=$WORK/apt/status -o Dir::Cache=$WORK/apt -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Acquire::Retries=0 update",
        call: "update and download",
        ..WEB
    },
    Client {
        name: "Python urllib",
        needs: &["/usr/bin/python3", "nginx"],
        allowed: "/usr/bin/python3 $P/fetch.py urllib https://api.test/allowed/hello",
        refused: "/usr/bin/python3 $P/fetch.py urllib https://api.test/refused/hello",
        fails: false,
        ..WEB
    },
    Client {
        name: "Python requests",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx"],
        allowed: "$TOOLS/venv/bin/python3 $P/fetch.py requests https://api.test/allowed/hello",
        refused: "$TOOLS/venv/bin/python3 $P/fetch.py requests https://api.test/refused/hello",
        trust: "REQUESTS_CA_BUNDLE",
        ..WEB
    },
    Client {
        name: "Python httpx, HTTP/2",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx"],
        allowed: "$TOOLS/venv/bin/python3 $P/fetch.py httpx https://api.test/allowed/hello | tee $WORK/httpx; grep -q '^HTTP/2' $WORK/httpx",
        refused: "$TOOLS/venv/bin/python3 $P/fetch.py httpx https://api.test/refused/hello",
        trust: "SSL_CERT_FILE",
        ..WEB
    },
    Client {
        name: "Python aiohttp",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx"],
        allowed: "$TOOLS/venv/bin/python3 $P/fetch.py aiohttp https://api.test/allowed/hello",
        refused: "$TOOLS/venv/bin/python3 $P/fetch.py aiohttp https://api.test/refused/hello",
        ..WEB
    },
    Client {
        name: "Go net/http",
        needs: &["go", "nginx"],
        allowed: "cd $WORK && GOFLAGS=-mod=mod GO111MODULE=off GOCACHE=$WORK/gocache go build -o fetch-go $P/fetch.go && ./fetch-go https://api.test/allowed/hello",
        refused: "$WORK/fetch-go https://api.test/refused/hello",
        trust: "SSL_CERT_FILE",
        ..WEB
    },
    Client {
        name: "Java HttpClient",
        needs: &["java", "nginx"],
        allowed: "java $P/Fetch.java https://api.test/allowed/hello",
        refused: "java $P/Fetch.java https://api.test/refused/hello",
        trust: "JAVA_TOOL_OPTIONS, a PKCS #12 store",
        ..WEB
    },
    Client {
        name: "Rust reqwest, its own roots",
        from: "crates.io",
        needs: &["rust/fetch", "nginx"],
        allowed: "! $TOOLS/rust/fetch https://api.test/allowed/hello && $TOOLS/rust/fetch https://api.test/allowed/hello $SSL_CERT_FILE",
        refused: "$TOOLS/rust/fetch https://api.test/refused/hello $SSL_CERT_FILE",
        trust: "not by itself: the program's own option for one more root",
        ..WEB
    },
    Client {
        name: "grpcio",
        from: "PyPI",
        needs: &["venv/bin/python3", "grpc"],
        allowed: "$TOOLS/venv/bin/python3 $P/grpc_client.py allowed",
        prints: "hello\none\ntwo\nthree\n",
        proof: Proof::Credential("grpc.test"),
        refused: "$TOOLS/venv/bin/python3 $P/grpc_client.py refused",
        shows: "PERMISSION_DENIED egress denied (no_rule)",
        call: "unary and bidirectional",
        trust: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        ..WEB
    },
    Client {
        name: "Python websockets",
        from: "PyPI",
        needs: &["venv/bin/python3", "ws"],
        allowed: "$TOOLS/venv/bin/python3 $P/ws_client.py wss://ws.test/allowed",
        prints: "hello\nagain\nbye\n",
        proof: Proof::Credential("ws.test"),
        refused: "$TOOLS/venv/bin/python3 $P/ws_client.py wss://ws.test/refused",
        call: "three messages",
        ..WEB
    },
    Client {
        name: "psql",
        needs: &["psql", "postgres"],
        allowed: "psql -h pg.test -U postgres -Atc \"select 'hel' || 'lo'\"",
        proof: Proof::Reached("postgres.log"),
        refused: "psql -h no-pg.test -U postgres -Atc \"select 1\"",
        call: "a query",
        ..OPAQUE
    },
    Client {
        name: "mariadb",
        needs: &["mysql", "mariadb"],
        allowed: "mariadb -h mysql.test -u root -Ne \"select concat('hel', 'lo')\"",
        proof: Proof::Reached("mariadb.log"),
        refused: "mariadb -h no-mysql.test -u root -e 'select 1'",
        call: "a query",
        ..OPAQUE
    },
    Client {
        name: "redis-cli",
        needs: &["redis-cli", "redis"],
        allowed: "redis-cli -h redis.test echo hello",
        proof: Proof::Reached("redis.log"),
        refused: "redis-cli -h no-redis.test echo hello",
        fails: false,
        call: "a command",
        ..OPAQUE
    },
    Client {
        name: "OpenAI SDK",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx", "llm"],
        allowed: "$TOOLS/venv/bin/python3 $P/llm.py openai whole && $TOOLS/venv/bin/python3 $P/llm.py openai stream",
        prints: "hello from the model\nhello from the model",
        proof: Proof::Credential("api.openai.com"),
        refused: "$TOOLS/venv/bin/python3 $P/llm.py openai refused",
        call: "chat, whole and streamed",
        trust: "SSL_CERT_FILE",
        ..WEB
    },
    Client {
        name: "Anthropic SDK",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx", "llm"],
        allowed: "$TOOLS/venv/bin/python3 $P/llm.py anthropic whole && $TOOLS/venv/bin/python3 $P/llm.py anthropic stream",
        prints: "hello from the model\nhello from the model",
        proof: Proof::Credential("api.anthropic.com"),
        refused: "$TOOLS/venv/bin/python3 $P/llm.py anthropic refused",
        call: "a message, whole and streamed",
        trust: "SSL_CERT_FILE",
        ..WEB
    },
    Client {
        name: "boto3, Bedrock",
        from: "PyPI",
        needs: &["venv/bin/python3", "nginx", "llm"],
        allowed: "$TOOLS/venv/bin/python3 $P/llm.py bedrock whole",
        prints: "hello from the model",
        proof: Proof::Credential("bedrock"),
        refused: "$TOOLS/venv/bin/python3 $P/llm.py bedrock refused",
        call: "converse, with a bearer token",
        trust: "AWS_CA_BUNDLE",
        ..WEB
    },
    Client {
        name: "Chromium, headless",
        needs: &["chromium", "certutil", "nginx"],
        allowed: "rm -rf $WORK/.pki && mkdir -p $WORK/.pki/nssdb && certutil -d sql:$WORK/.pki/nssdb -N --empty-password && certutil -d sql:$WORK/.pki/nssdb -A -n egret -t C,, -i $NODE_EXTRA_CA_CERTS && chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --user-data-dir=$WORK/chromium --dump-dom https://api.test/allowed/page.html 2>$WORK/chromium.err",
        refused: "rm -rf $WORK/.pki && mkdir -p $WORK/.pki/nssdb && certutil -d sql:$WORK/.pki/nssdb -N --empty-password && certutil -d sql:$WORK/.pki/nssdb -A -n egret -t C,, -i $NODE_EXTRA_CA_CERTS && chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --user-data-dir=$WORK/chromium2 --dump-dom https://api.test/refused/page.html 2>$WORK/chromium.err",
        proof: Proof::Credential("api.test"),
        fails: false,
        call: "a page",
        trust: "not by itself: `certutil` puts the session's authority into the user's NSS store",
        ..WEB
    },
];
