"""The encoding of values, written again over Python's json and repr. TestValuesAgreeWithPython compares the two.

values.py check          for each line of stdin, a value as Go encodes it: the same value as Python does
values.py make SEED N    N lines: some JSON that Python made of a random value, a tab, the encoding of the value
"""
import json
import random
import re
import struct
import sys

SPECIAL = re.compile(r"\\*(NaN|Infinity|-Infinity)\Z")
FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def escape(value, clean):
    """Returns what json.dumps shall write for value; clean is applied to texts."""
    if isinstance(value, str):
        value = clean(value)
        return "\\" + value if SPECIAL.match(value) else value
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if value in (float("inf"), float("-inf")):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, list):
        return [escape(v, clean) for v in value]
    if isinstance(value, dict):
        return {clean(k): escape(v, clean) for k, v in value.items()}
    return value


def no_surrogates(text):
    """Returns text as it would be read from UTF-16: pairs are one letter, lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def unescape(value):
    """Returns what was meant by what json.loads returned."""
    if isinstance(value, str) and SPECIAL.match(value):
        return value[1:] if value[0] == "\\" else FLOATS[value]
    if isinstance(value, list):
        return [unescape(v) for v in value]
    if isinstance(value, dict):
        return {k: unescape(v) for k, v in value.items()}
    return value


def encode(value):
    text = json.dumps(escape(value, no_surrogates), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Python has short forms for two more control characters.
    return re.sub(r"(\\\\)|\\b|\\f", lambda m: m[1] or {"\\b": "\\u0008", "\\f": "\\u000c"}[m[0]], text)


def refuse(word):
    raise ValueError(word + " is not strict JSON")


def decode(text):
    return unescape(json.loads(text, parse_constant=refuse))


def random_value(r, depth=0):
    kind = r.randrange(12)
    if kind == 0:
        return r.choice([None, True, False])
    if kind == 1:
        return r.randrange(-100, 100)
    if kind == 2:
        return r.choice([-1, 1]) * r.getrandbits(r.randrange(1, 300)) + r.randrange(-1, 2)
    if kind in (3, 4):
        return struct.unpack("<d", struct.pack("<Q", r.getrandbits(64)))[0]
    if kind == 5:
        return r.choice([0.0, -0.0, 1e16, 1e15, 1e-4, 1e-5, 5e-324, 2.0**53, *FLOATS.values()])
    if kind == 6:
        return round(r.uniform(-1000, 1000), r.randrange(8))
    if kind in (7, 8) or depth > 3:
        return random_text(r)
    if kind == 9:
        return "\\" * r.randrange(3) + r.choice(list(FLOATS))
    if kind == 10:
        return [random_value(r, depth + 1) for _ in range(r.randrange(4))]
    return {random_text(r): random_value(r, depth + 1) for _ in range(r.randrange(4))}


def random_text(r):
    letters = "ab\"\\/<>&\0\b\f\n\r\t\x1f\x7f\x80é\u07ff\u2028\ufffd\uffff😀\U0010ffff\ud800\udbff\udc00\udfff"
    return "".join(r.choice(letters) for _ in range(r.randrange(6)))


def make(seed, n):
    r = random.Random(seed)
    for _ in range(n):
        value = random_value(r)
        given = json.dumps(escape(value, lambda text: text), separators=r.choice([(",", ":"), (" , ", ": ")]))
        print(given + "\t" + encode(value))


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", newline="\n")
    if sys.argv[1] == "make":
        make(int(sys.argv[2]), int(sys.argv[3]))
    else:
        for line in sys.stdin:
            print(encode(decode(line)))
