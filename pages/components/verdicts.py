"""How the outcomes of verdicts are shown."""

from soupcore.analysis.verdict import Outcome

ICONS: dict[Outcome, str] = {
    "unknown": ":material/hourglass_empty:",
    "better": ":material/trending_up:",
    "even": ":material/drag_handle:",
    "worse": ":material/trending_down:",
    "open": ":material/help:",
}
