"""The templates of the pages, and what each of them may call. Every name and label is escaped."""

from importlib import resources

import jinja2
from markupsafe import Markup

from radprobe.report import style, words
from radprobe.report.collect import Findings

TEMPLATES = resources.files(__package__).joinpath("templates")


def environment(findings: Findings) -> jinja2.Environment:
    """Return what renders the templates."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= {"words": words, "style": style, "title": findings.title, "family": findings.family}
    made.globals |= {"css": Markup(source("style.css"))}
    return made


def source(name: str) -> str:
    """Return a template, style or script as it lies in the package."""
    return TEMPLATES.joinpath(name).read_text(encoding="utf-8")
