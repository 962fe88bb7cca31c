"""Texts that try to leave where they are put: names and paths (`NAMES`), addresses (`ADDRESSES`). None of them names anything of ours."""

from __future__ import annotations

LONG = "a" * 5000

NAMES = [
    # up and out
    "..", ".", "../x", "../../x", "../../../../../../etc/passwd", "x/..", "x/../y", "x/../../y", "./x", "x/.", "x//y", "x/y", "x/", "/",
    "//", "///etc", "/etc/passwd", "/tmp/x", "//server/share", "/proc/self/environ", "/dev/null", "/dev/stdin", "...", "..x/..",
    "....//x",
    "..../x", "..;/x", "x/..;/y", "a/b/../../../c", "runs/../../x", "..\n", "..\r", "../\n", "..\t",
    # by other systems' ways
    "..\\x", "..\\..\\x", "\\x", "\\\\server\\share", "x\\..\\y", "C:", "C:\\x", "C:/x", "C:x", "c:..\\x", "\\\\?\\C:\\x",
    "\\\\.\\pipe\\x",
    "..\\/x", "x:stream", "x::$DATA", "con", "CON", "prn", "aux", "nul", "NUL", "com1", "COM9", "lpt1", "LPT9", "nul.txt", "con.a.b",
    "aux.yaml",
    # encoded, once or twice
    "%2e%2e", "%2e%2e/x", "%2e%2e%2fx", "..%2fx", "..%5cx", "%252e%252e", "%252e%252e%252fx", "%c0%ae%c0%ae/x", "%c0%af", "%uff0e%uff0e",
    "%00", "x%00y", "x%0ay", "%7e", "&#46;&#46;/x", "&period;&period;", "\\u002e\\u002e/x", "\\x2e\\x2e/x", "=2E=2E/x",
    # what ends a text early, and what nobody sees
    "x\0", "x\0y", "\0", "..\0", "../x\0.yaml", "x\ny", "\nx", "x\n", "x\r\ny", "x\ty", "\x1b[31mx", "x\x07", "x\x08", "x\x7f",
    "x\x80", "x\x85y",
    "\u200b", "x\u200by", "x\u200dy", "x\ufeffy", "\ufeffx", "x\u00ady", "x\u2028y", "x\u2029y", "\u202ex", "x\u202ey", "\u200fx",
    "x\u2066y",
    "x\u061cy", "\ue000x", "\U000e0041x", "x\u00a0y", "\u3000x", "x\u2003y",
    # what looks like something else
    "\uff0e\uff0e", "\uff0e\uff0e/x", "\uff0e\uff0e\uff0fx", "\u2024\u2024/x", "\u2025/x", "\u2026/x", "x\u2044y", "x\u2215y", "x\u29f8y",
    "x\uff0fy", "x\uff3cy", "x\u2216y", "\u0430dmin", "f\u0430shion", "\uff46\uff41\uff53\uff48\uff49\uff4f\uff4e", "\u212aey",
    "\u2160", "\u00b2",
    "e\u0301", "\u1e9e", "\u0130", "x\u0338", "\u4e00", "\U0001f600",
    # what shells, options and other programs take for something
    "-x", "--help", "-rf", "--yes", "-", "~", "~/x", "~root", "~root/x", "$HOME", "${HOME}", "$(touch x)", "`touch x`", "x;touch y",
    "x|y",
    "x&y", "x>y", "x<y", "*", "?", "[x]", "{x,y}", "!x", "#x", "'x'", '"x"', "x'y", 'x"y', "x y", " x", "x ", "  ", "x=y", "x,y", "@x",
    "x@y",
    "x+y", "x^y", "(x)", "%x", "%s%s%n", "{0}", "{{x}}", "<x>", "<script>", "${jndi:ldap://x}", "{{7*7}}", "x' OR '1'='1",
    "x; DROP TABLE y",
    # where other things of the study home lie
    "mlflow", "mlflow.db", "mlflow.db-wal", "MLFLOW.db", "mlruns", "mlruns/x", "mlartifacts", "mlartifacts/x", ".mlflow.lock",
    ".detached", ".git",
    ".x", ".hidden", ".ssh", ".bashrc", "journal.jsonl/..",
    # too much
    LONG, "a" * 65, "a" * 256, "../" * 500 + "x", "a/" * 500, "%2e" * 1000, "\u0301" * 300, "",
]  # fmt: skip

ADDRESSES = [
    # other schemes
    "file:///etc/passwd", "file:/etc/passwd", "file://localhost/etc/passwd", "file:x", "FILE:///x", "file+http://x",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)", "vbscript:x", "data:text/html,x", "data:;base64,eA==", "gopher://x:70/_x", "dict://x:11211/stat", "ftp://x/y",
    "ftps://x/y", "sftp://x/y", "tftp://x/y", "smb://x/y", "cifs://x/y", "nfs://x/y", "jar:http://x!/y", "jar:file:///x!/y", "ssh://x/y",
    "scp://x/y", "git://x/y", "git+ssh://x/y", "svn://x", "ldap://x/y", "ldaps://x", "rmi://x/y", "jndi:ldap://x", "telnet://x",
    "mailto:x@y",
    "unix:/run/x.sock", "unix:///run/x.sock", "http+unix://%2Frun%2Fx.sock", "ws://x", "wss://x", "ray://x:10001", "s3://bucket/x",
    "s3a://b/x",
    "gs://bucket/x", "azure://x", "wasbs://x", "hdfs://x/y", "viewfs://x", "dbfs:/x", "mlflow-artifacts:/x", "runs:/x/y",
    "models:/x/1", "uc:x",
    "databricks-uc://x", "redis://x", "mongodb://x", "amqp://x", "oracle://x/y", "memory://", "duckdb:///x.db", "plugin-scheme://x",
    "x://y",
    "://x", ":x", "//x/y", "x:y", "localhost:5000", "127.0.0.1:5000", "about:blank", "blob:http://x", "view-source:http://x",
    "feed:http://x",
    # http that leads elsewhere than it seems
    "http:", "http:/", "http://", "http:x", "http:/x", "http:///x", "http:////x", "http:\\\\x", "http:/\\x", "HTTP://x", "Http://x",
    "http//x",
    "http://a@b", "http://trusted.example@evil", "http://trusted.example:80@evil", "http://a:b@c@d", "http://a:b@c:d@e", "http://@x",
    "http://:@x",
    "http://:x@y", "http://trusted.example\\@evil", "http://trusted.example#@evil", "http://trusted.example?@evil",
    "http://trusted.example/@evil?",
    "http://x#y", "http://x?y", "http://x/y?z", "http://x;y", "http://x y", " http://x", "http://x ", "http://x\n", "http://x\nHost: y",
    "http://x\r\nX: y", "http://x\t", "http://x\0", "http://x\0.trusted", "http://x%00y", "http://x%0d%0aX:y", "http://x/%2e%2e/y",
    "http://x/../y", "http://x/./y", "http://x/..", "http://x//y", "http://x/%2fy", "http://x/\\y", "http://x/y z", "http://x\\y",
    "http://2130706433", "http://0x7f000001", "http://017700000001", "http://127.1", "http://0x7f.1", "http://127.0.0.1.",
    "http://1.2.3.4.5",
    "http://256.1.1.1", "http://[::1", "http://::1", "http://[x]", "http://[127.0.0.1]", "http://[::ffff:1.2.3.4%25x]", "http://x:0",
    "http://x:-1",
    "http://x:65536", "http://x:99999999", "http://x:y", "http://x:", "http://x:80:80", "http://x:8 0", "http://-x", "http://x-",
    "http://.x",
    "http://x..y", "http://*", "http://x*", "http://$x", "http://\u0430pple.com", "http://\uff58", "http://x\u3002y",
    "http://x\uff0ey", "http://x\u2024y",
    "http://\u2488.x", "http://x\u200b", "http://\u202ex", "http://x\u00ad", "http://" + "a" * 254, "http://x/" + "a" * 3000,
    "https://", "https://a@b",
    # databases with tricks
    "sqlite:", "sqlite:/", "sqlite://", "sqlite:///", "sqlite:////", "sqlite://x.db", "sqlite:x.db", "sqlite:/x.db", "SQLITE:///x.db",
    "sqlite:///:memory:", "sqlite:///../x.db", "sqlite:////tmp/../x.db", "sqlite:///./../x.db", "sqlite:///x/../../y.db",
    "sqlite:///~/x.db",
    "sqlite:///~root/x.db", "sqlite:////etc/passwd", "sqlite:////x.pth", "sqlite:///.bashrc", "sqlite:///x", "sqlite:///x.db/",
    "sqlite:///.db",
    "sqlite:///x.py", "sqlite:///x.db?mode=ro", "sqlite:///x.db?mode=memory", "sqlite:///file:x.db?uri=true",
    "sqlite:///file:///etc/x.db",
    "sqlite:///file:x.db", "sqlite:///x.db#y", "sqlite:///x.db;ATTACH 'y'", "sqlite:///%2e%2e/x.db", "sqlite:///x%00.db",
    "sqlite:///x\0.db",
    "sqlite:///x\n.db", "sqlite:///\uff0e\uff0e/x.db", "sqlite:///\u202ex.db", "sqlite:///..\\x.db", "sqlite:///C:\\x.db",
    "sqlite+evil:///x.db",
    "sqlite+:///x.db", "sqlite+pysqlcipher:///x.db", "sqlite+aiosqlite:///x.db", "sqlite:///x//y.db", "sqlite:////dev/shm/../x.db",
    "postgresql:", "postgresql://", "postgresql:///x", "postgresql://x/../y", "postgresql://x/y/z", "postgresql://x/y?options=-c",
    "postgresql://x/y#z",
    "postgresql://x/y?service=z", "postgresql://x/y?passfile=/z", "postgresql://x/y?sslmode=disable&evil=1", "postgresql://x/y?a",
    "postgresql+evil://x/y",
    "postgresql+os.system://x/y", "postgresql+://x/y", "postgres://x/y", "postgresql://a@b@c/d", "postgresql://x/y;z",
    "postgresql://x\n/y",
    "postgresql://x/%2e%2e", "mysql://x/y?read_default_file=/z", "mysql://x/y?init_command=z", "mysql://x/y?local_infile=1",
    "mysql+evil://x/y",
    "mysql://x/y?plugin_dir=/z", "mssql://x/y?driver=/tmp/z.so", "mssql+pyodbc://x/y?driver=/tmp/z.so", "mssql+pyodbc://x/y?driver=z;y",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D/tmp/z.so", "mssql://x/y?trusted_connection=yes", "databricks:",
    "databricks://",
    "databricks://../x", "databricks://x/y", "databricks://x?y", "databricks://x@y",
]  # fmt: skip
