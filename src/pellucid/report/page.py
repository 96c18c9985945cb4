"""One page in the report's look: a template with the style sheet inside, so that it needs nothing else."""

from __future__ import annotations

from importlib import resources

import jinja2

import pellucid


def page(template: str, **parts: object) -> str:
    """The HTML of a template in `templates/`; markup in what is filled in is shown and never run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pellucid.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (resources.files("pellucid.report") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, version=pellucid.__version__, **parts)
