"""Write what the published tables say into docs/paper_tables.md, between its two marks.

python -m tools.paper_findings
"""

import json
from pathlib import Path

from experiments.paper_tables.findings import as_markdown
from jedi_diffusion.files import write_file

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- what `tools/paper_findings.py` makes of tables.json: -->\n", "\n<!-- until here -->"


def main() -> None:
    page = DOCS / "paper_tables.md"
    told = json.loads((DOCS / "paper_tables" / "tables.json").read_text(encoding="utf-8"))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    write_file(page, f"{before}{BEGIN}{as_markdown(told)}{END}{rest.partition(END)[2]}".encode())


if __name__ == "__main__":
    main()
