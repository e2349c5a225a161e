"""Reports that people read: `report.md` and one self-contained `report.html`.

    python -m harness.report RUN_DIR [RUN_DIR ...] [--out DIR]

For one run, a sweep, or several runs side by side. The page needs no network and no other file.
"""

from harness.report.build import REPORT_HTML, REPORT_MD, write_report
from harness.report.load import ReportError

__all__ = ["REPORT_HTML", "REPORT_MD", "ReportError", "write_report"]
