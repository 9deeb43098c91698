#!/usr/bin/env python3
"""Makes ordinary texts of what package registries hold under permissive licences, as training data.

    gather.py sentences OUT.jsonl CRATE_DIR...   test sentences of the lingua-*-language-model crates
                                                 (Apache-2.0; from the Leipzig Corpora Collection, CC BY 4.0)
    gather.py code OUT.jsonl DIR...              pieces of source files and documentation
    gather.py licences OUT.json FILE.jsonl...    the list that lets `portcullis-train` learn from them

The same folders give the same file, byte for byte. Standard library only.
"""
import hashlib
import json
import pathlib
import sys

CODES = {
    "arabic": "ar", "bengali": "bn", "bulgarian": "bg", "chinese": "zh", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en",
    "finnish": "fi", "french": "fr", "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi", "hungarian": "hu", "indonesian": "id",
    "italian": "it", "japanese": "ja", "korean": "ko", "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro",
    "russian": "ru", "spanish": "es", "swedish": "sv", "thai": "th", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}
# Sentences a text is made of, in turn.
LENGTHS = (1, 1, 1, 2, 1, 4)
ASKS = ("", "", "", "Explain this code:\n", "What is wrong with this?\n", "Please review:\n", "Summarise this page:\n", "Write tests for\n")
KINDS = {".rs", ".py", ".md", ".toml", ".js", ".ts", ".go", ".sh", ".rst", ".json", ".yaml"}
PIECES_OF_A_FILE = 3
LONGEST = 2600


def row(text, source, lang):
    return json.dumps({"text": text, "label": "benign", "kind": "gathered", "source": source, "lang": lang}, ensure_ascii=False)


def sentences(folder):
    name = folder.name.split("-")[1]
    code = CODES[name]
    lines = [line.strip() for line in (folder / "testdata/sentences.txt").read_text("utf-8").splitlines() if line.strip()]
    at = turn = 0
    while at < len(lines):
        count = LENGTHS[turn % len(LENGTHS)]
        yield row(" ".join(lines[at:at + count]), f"leipzig_{code}", code)
        at, turn = at + count, turn + 1


def pieces(folder):
    """A few pieces of each file, chosen by the hash of its name, from its start on."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in KINDS and p.is_file()):
        text = path.read_bytes()[:200_000].decode("utf-8", "replace")
        seed = int.from_bytes(hashlib.sha256(f"{folder.name}/{path.relative_to(folder)}".encode()).digest()[:8], "big")
        for piece in range(PIECES_OF_A_FILE):
            seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
            start = (seed >> 33) % max(1, len(text) - 200)
            length = 150 + (seed >> 17) % LONGEST
            part = text[start:start + length].strip()
            kind = "docs" if path.suffix in {".md", ".rst"} else "code"
            if len(part) > 80:
                yield row(ASKS[(seed >> 40) % len(ASKS)] + part, f"{kind}_{path.suffix[1:]}", "code" if kind == "code" else "en")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    command, out, names = sys.argv[1], sys.argv[2], sorted(sys.argv[3:])
    if command == "licences":
        sources = sorted({json.loads(line)["source"] for name in names for line in open(name, encoding="utf-8")})
        pathlib.Path(out).write_text(json.dumps({s: ["permissive, see docs/model-card.md", "ok"] for s in sources}, indent=1) + "\n")
        return
    make = {"sentences": sentences, "code": pieces}[command]
    with open(out, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for name in names for line in make(pathlib.Path(name)))


if __name__ == "__main__":
    main()
