"""Builds the wheel of the Python package, with the standard library alone: the backend of pip, and `make wheel`.

    python3 python/replicate_wheel.py dist

If bin/replicate beside this folder has been built, the wheel carries it as replicate/bin/replicate and is for the platform of
that binary; a static binary runs on every Linux, whatever its C library. Else the wheel is for every platform and holds
Python only. The same sources give the same bytes.
"""
import base64
import hashlib
import os
import re
import struct
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BINARY = os.path.join(ROOT, "bin", "replicate")

LAUNCHER = """#!python
import os, sys, replicate
binary = os.path.join(os.path.dirname(replicate.__file__), "bin", "replicate")
os.execv(binary, [binary] + sys.argv[1:])
"""

METADATA = """Metadata-Version: 2.1
Name: replicate
Version: {version}
Summary: Machine-learning experiments as a file system
License: Apache-2.0
Requires-Python: >=3.8
"""

ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
MACH_MACHINES = {0x01000007: "x86_64", 0x0100000C: "arm64"}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """The hook of PEP 517. Returns the name of the file it has written."""
    files = package_files()
    version = re.search(r'__version__ = "(.+)"', files["replicate/__init__.py"].decode()).group(1)
    platform = "any"
    if os.path.isfile(BINARY):
        files["replicate/bin/replicate"] = read(BINARY)
        files[f"replicate-{version}.data/scripts/replicate"] = LAUNCHER.encode()
        platform = platform_of(files["replicate/bin/replicate"])
    info = f"replicate-{version}.dist-info"
    files[f"{info}/METADATA"] = METADATA.format(version=version).encode()
    if os.path.isfile(os.path.join(ROOT, "LICENSE")):
        files[f"{info}/licenses/LICENSE"] = read(os.path.join(ROOT, "LICENSE"))
    tags = "".join(f"Tag: py3-none-{tag}\n" for tag in platform.split("."))
    pure = "true" if platform == "any" else "false"
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: replicate\nRoot-Is-Purelib: {pure}\n{tags}".encode()
    record = [f"{path},sha256={digest(data)},{len(data)}\n" for path, data in files.items()]
    files[f"{info}/RECORD"] = "".join(record + [f"{info}/RECORD,,\n"]).encode()

    name = f"replicate-{version}-py3-none-{platform}.whl"
    os.makedirs(wheel_directory, exist_ok=True)
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)  # its time is 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if path.endswith("/replicate") else 0o100644) << 16
            wheel.writestr(entry, data)
    return name


def package_files():
    folder = os.path.join(HERE, "replicate")
    return {f"replicate/{name}": read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".py")}


def platform_of(binary):
    """The platform tags of an executable, from its header."""
    if binary[:4] == b"\x7fELF":
        machine = ELF_MACHINES[struct.unpack_from("<H", binary, 18)[0]]
        return f"manylinux2014_{machine}.manylinux_2_17_{machine}.musllinux_1_1_{machine}"
    if binary[:4] == b"\xcf\xfa\xed\xfe":
        return f"macosx_11_0_{MACH_MACHINES[struct.unpack_from('<I', binary, 4)[0]]}"
    raise SystemExit(f"{BINARY} is no executable of Linux or macOS")


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def read(path):
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    print(os.path.join(sys.argv[1], build_wheel(sys.argv[1])))
