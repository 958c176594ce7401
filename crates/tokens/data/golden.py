"""Counts tokens of tricky texts with tiktoken, for crates/tokens/data/golden.tsv: cl100k, o200k, text in JSON."""
import json, random, sys
import tiktoken
cl, o2 = tiktoken.get_encoding("cl100k_base"), tiktoken.get_encoding("o200k_base")
texts = [
 "", "a", " ", "\n", "\r\n", "Who is Joseph Conrad?", "Hello, world!", "Hello, world?",
 "I'm you're he's WE'VE they'd it'll can't 'twas 's 'S 'ſ xſ'ſ 'LL 'lL 'Re", "'", "''''", "it''s", "'sure 'tis",
 "camelCase HTTPServer XMLHttpRequest aB AB Ab ABc aBC Éa éA ÀÉÎ ßẞ ǅungla ǈubav",
 "1 12 123 1234 12345 3.14159 1,000,000 0xdeadbeef ½ ⅷ ٣٤٥٦ 一二三四 ①②③④",
 "  leading", "trailing  ", "a  b", "a   b", "a\n\n\nb", "a \n b", "a\n  ", "a  \n  \n", "\t\tx", "\t \tx", " \u00a0x", "\u00a0 x", "\u3000\u3000全角",
 "x\u2028y\u2029z\x85w", "\r\r\n\n", " \r \n x", "end\n", "end\n\n ", "    def f(x):\n        return x\n\n\n    pass\n",
 "!!!", "?!?!", "a!b", " !a", "  !a", "!\n\n/", "//\n/x", "---\n\n---", "path/to/file/", "/\n/\r/", "…", "—", " — ", "$100", "€5", "#hash @at",
 "道可道,非常道。名可名,非常名。", "學而時習之,不亦說乎?", "中文ABC中文", "ABC中文abc", "日本語テキストとカタカナ", "한국어 문장입니다", "ไทยภาษาที่ไม่มีวรรค", "Привет, МИР! ПриВет", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "ʰʷmodifier ˈstress",
 "e\u0301te\u0301 E\u0301 \u0301a \u0301A \u0301 \u0301\u0301 !\u0301A !\u0301a a\u0301B", "\u0301'sX", "\u0301ABC", "\ufe0f x", "☂\ufe0fA ☂\ufe0fa", "👩‍👩‍👧‍👦", "👩‍👩‍👧‍👦👨‍👩‍👦 🏳️‍🌈 👍🏽", "🇩🇪🇫🇷", "zero\u200bwidth\u200d\u200c", "\u0000\u0001\u007f", "\ufeffBOM", "\U0010ffff\U000e0001\ue000",
 "<|endoftext|> <|im_start|>user", "{\"a\": [1, 2.5, null], \"b\": \"c\\n\"}", "SELECT * FROM t WHERE x='y';", "https://example.com/a?b=c&d=%20#e", "aGVsbG8gd29ybGQ+/w==", "QmFzZTY0IGVuY29kZWQ=\n", "ffffffff-0000-4000-8000-123456789abc",
 "a"*100, "A"*100, "ab"*60, " "*100, " "*128, "\n"*100, "\t"*77, " \n"*50, "="*128, "-"*80, "*"*65, "1"*100, "."*100, "'"*99, "_"*64, "aA"*50, "é"*50, "中"*60, "👍"*40, "\u0301"*40, "(((((((((((", "))))))];};", "x = [[[[]]]]",
 "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "supercalifragilisticexpialidocious", "the the the THE The tHE",
]
r = random.Random(20260101)
pools = ["abcxyz", "ABCabc'", "aAéÉ中ǅʰ\u0301", " \n\r\t\u00a0", " \nab!'/", "0123½٣ a", "!?./\\-_ a\n", "'sStTlLrReEvVmMdDſ ", "aA中\u0301 '!1\n", "👍\u200d\ufe0f🏽a ", "".join(map(chr, range(0x20, 0x250)))]
for i in range(int(sys.argv[1])):
    pool = pools[i % len(pools)]
    texts.append("".join(r.choice(pool) for _ in range(r.randint(2, 40))))
    if i % 4 == 0:
        texts.append("".join(chr(c) for c in (r.choice([r.randrange(0x20,0x7f), r.randrange(0xa0,0x3000), r.randrange(0x3000,0xd7ff), r.randrange(0x10000,0x1ffff)]) for _ in range(r.randint(2,20)))))
words = [cl.decode([i]) for i in (r.randrange(100000) for _ in range(4000))]
for i in range(int(sys.argv[1])//4):
    texts.append("".join(w for w in (r.choice(words) for _ in range(r.randint(2, 12))) if "\ufffd" not in w))
with open(sys.argv[2], "w", newline="\n") as out:
    for t in texts:
        if len(t.encode()) > 256: continue
        out.write(f"{len(cl.encode_ordinary(t))}\t{len(o2.encode_ordinary(t))}\t{json.dumps(t)}\n")
