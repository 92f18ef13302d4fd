"""``report.html``: everything a person looks at, in one file that needs nothing else.

python -m analysis.page RUN

The file is complete without its script, which links what is drawn, filters and sorts.
"""

from analysis.page.build import write_page

__all__ = ["write_page"]
