"""Makes what package managers ask for: a wheel, an npm package, a crate and a Debian package of the
name hello-egret, each with its index, below the folder `allowed` of the given one. `refused` is the
same again, so that what is refused would have been served."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

root = sys.argv[1]
allowed = os.path.join(root, "allowed")


def write(path, data):
    full = os.path.join(allowed, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


write("hello", "hello from the server\n")
write("page.html", "<html><body><p>hello from the server</p></body></html>\n")

wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as z:
    info = "hello_egret-1.0.dist-info"
    z.writestr("hello_egret.py", "hello = 'hello'\n")
    z.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello-egret\nVersion: 1.0\n")
    z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(f"{info}/RECORD", f"hello_egret.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
name = "hello_egret-1.0-py3-none-any.whl"
write(f"simple/hello-egret/{name}", wheel.getvalue())
digest = hashlib.sha256(wheel.getvalue()).hexdigest()
write("simple/hello-egret/index.html", f'<!DOCTYPE html><a href="{name}#sha256={digest}">{name}</a>\n')

package = tar({"package/package.json": json.dumps({"name": "hello-egret", "version": "1.0.0"})})
write("tarballs/hello-egret-1.0.0.tgz", package)
integrity = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode()
dist = {"tarball": "https://npm.test/allowed/tarballs/hello-egret-1.0.0.tgz", "integrity": integrity}
version = {"name": "hello-egret", "version": "1.0.0", "dist": dist}
write("hello-egret", json.dumps({
    "name": "hello-egret", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}))

crate = tar({
    "hello-egret-1.0.0/Cargo.toml": '[package]\nname = "hello-egret"\nversion = "1.0.0"\nedition = "2021"\n',
    "hello-egret-1.0.0/src/lib.rs": "",
})
write("crates/hello-egret-1.0.0.crate", crate)
write("index/config.json", json.dumps({"dl": "https://crates.test/allowed/crates/{crate}-{version}.crate"}))
write("index/he/ll/hello-egret", json.dumps({
    "name": "hello-egret", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False,
    "cksum": hashlib.sha256(crate).hexdigest()}) + "\n")

if shutil.which("dpkg-deb"):
    build = os.path.join(root, "deb")
    os.makedirs(os.path.join(build, "DEBIAN"))
    with open(os.path.join(build, "DEBIAN/control"), "w") as file:
        file.write("Package: hello-egret\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@debian.test>\n"
                   "Description: hello\n")
    target = os.path.join(allowed, "pool/hello-egret_1.0_all.deb")
    os.makedirs(os.path.dirname(target))
    subprocess.run(["dpkg-deb", "-b", build, target], check=True, stdout=subprocess.DEVNULL)
    with open(target, "rb") as file:
        data = file.read()
    control = open(os.path.join(build, "DEBIAN/control")).read()
    write("dists/stable/main/binary-amd64/Packages", control + f"Filename: pool/hello-egret_1.0_all.deb\nSize: {len(data)}\n"
          f"SHA256: {hashlib.sha256(data).hexdigest()}\n")

shutil.copytree(allowed, os.path.join(root, "refused"))
