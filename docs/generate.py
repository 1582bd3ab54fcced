"""The pages of docs/reference that the code says: params, command line, artifacts. `make reference` writes them."""

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

from radprobe import artifacts, cli, params
from radprobe.study import OUTPUTS

FOLDER = Path(__file__).parent / "reference"
SHIPPED = Path(__file__).parents[1] / "params.yaml"
MADE = "Made from `{source}` by `make reference`.\n"


def plain(text: str) -> str:
    """Return text of which nothing but code in backticks is markup: <id> is no tag."""
    parts = text.split("`")
    return "`".join(part if odd % 2 else part.replace("<", "&lt;") for odd, part in enumerate(parts))


def cell(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(plain(text).replace("|", "\\|").split())


def table(*rows: tuple[str, ...]) -> str:
    """Return rows as a table; the first is its head."""
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]]) + "\n"


# --- params -----------------------------------------------------------------------------------------------------------


def params_page() -> str:
    """Return reference/params.md: every key of a params file, section by section."""
    schema = json.loads(params.schema())
    sections = schema.pop("$defs")
    shown = shown_keys("A study", schema, sections, yaml.safe_load(SHIPPED.read_text(encoding="utf-8")))
    found = ["# Params", "", MADE.format(source="src/radprobe/params.py"), PARAMS]
    for name, each in {"A study": schema, **{name: sections[name] for name in order(schema, sections)}}.items():
        found.append(section(name, each, sections, shown.get(name)))
    return "\n".join(found)


PARAMS = """\
A study is one YAML file. `params.yaml` in the checkout is the study as shipped, with comments; it shows the keys that
people change, and this page lists the others as rarely changed. A key that is not listed here is refused, and the
nearest name is told. `null` leaves a thing out. An editor that knows JSON schemas can check a file as you type:
`workflow/schemas/params.schema.json`.
"""


def order(schema: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    """Return the names of all sections, each after the first that refers to it."""
    found: list[str] = []
    todo = [schema]
    while todo:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(todo.pop(0))):
            if name not in found:
                found.append(name)
                todo.append(sections[name])
    return found


def shown_keys(
    name: str, schema: dict[str, Any], sections: dict[str, Any], content: dict[str, Any]
) -> dict[str, set[str]]:
    """Return which keys of a section, and of those inside it, a params file shows; entries by name are left out."""
    found = {name: set(content)}
    for key, each in schema["properties"].items():
        for option in each.get("anyOf", [each]):
            if inner := option.get("$ref", "").rpartition("/")[2]:
                for one, keys in shown_keys(inner, sections[inner], sections, content.get(key) or {}).items():
                    found[one] = found.get(one, set()) | keys
    return found


def section(name: str, schema: dict[str, Any], sections: dict[str, Any], shown: set[str] | None) -> str:
    """Return a section of the schema as heading, text and tables: keys that params.yaml shows, and the others."""
    properties = schema["properties"]
    often = [key for key in properties if shown is None or key in shown]
    rarely = [key for key in properties if key not in often]
    parts = [f"## {name}\n\n{plain(schema['description'])}\n"]
    parts += [keys_table(often, schema, sections)] if often else []
    parts += ["Rarely changed:\n", keys_table(rarely, schema, sections)] if rarely else []
    return "\n".join(parts)


def keys_table(keys: list[str], schema: dict[str, Any], sections: dict[str, Any]) -> str:
    """Return keys of a section as a table."""
    required, properties = schema.get("required", []), schema["properties"]
    rows = [
        (f"`{key}`", kind(each), "**needed**" if key in required else default(each), meaning(each, sections))
        for key, each in ((key, properties[key]) for key in keys)
    ]
    return table(("key", "what", "default", "meaning"), *rows)


def meaning(schema: dict[str, Any], sections: dict[str, Any]) -> str:
    """Return what a key means: what it says itself, else its section."""
    named = re.search(r'"#/\$defs/(\w+)"', json.dumps(schema))
    return schema.get("description") or (sections[named[1]]["description"] if named else "")


WORDS = {"string": "text", "boolean": "true or false", "integer": "whole number"}
BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}


def kind(schema: dict[str, Any]) -> str:
    """Return what a value may be, in words, with links to sections."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(kind(each) for each in schema[key]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return f"list of {kind(items)}"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), {})
        return f"by name: {kind(inner)}" if isinstance(inner, dict) and inner else "mapping"
    word = WORDS.get(schema.get("type"), schema.get("type", "any"))
    limits = [f"{said} {schema[key]:,}" for key, said in BOUNDS.items() if key in schema]
    return " ".join([word, *limits])


def default(schema: dict[str, Any]) -> str:
    """Return a default as it would be typed; of a section that is its own defaults."""
    if "default" not in schema:
        return ""
    value = schema["default"]
    return "as its section" if isinstance(value, dict) and value else f"`{json.dumps(value, ensure_ascii=False)}`"


# --- the command line -------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """Return reference/cli.md, as typer tells it."""
    command = typer.main.get_command(cli.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="radprobe")
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{MADE.format(source='src/radprobe/cli.py')}{plain(rest.rstrip())}\n"


# --- artifacts --------------------------------------------------------------------------------------------------------


def artifacts_page() -> str:
    """Return reference/artifacts.md: every artifact that is saved, with fields, tables and maker."""
    order = [kind for kinds in OUTPUTS.values() for kind in kinds]
    kinds = [each for each in vars(artifacts).values() if isinstance(each, type) and hasattr(each, "KIND")]
    kinds.sort(key=lambda each: order.index(each.KIND))
    found = [
        "# Artifacts",
        "",
        MADE.format(source="src/radprobe/artifacts/"),
        inspect.getdoc(artifacts) + "\n",
        ARTIFACTS,
    ]
    return "\n".join(found + [artifact(each) for each in kinds])


ARTIFACTS = """\
They lie under `paths.work` and `paths.results`, in `<dataset>/<verb>/<backbone>/<key>/`. The key is a hash of what
the result depends on: params, catalog entry, code version and the keys before it. `<kind>.json` is the manifest:
`key`, `facts`, and `files` with bytes and SHA-256. From Python: `from radprobe.artifacts import Scores`, then
`Scores.load(folder).table`.
"""


def artifact(kind_of: type) -> str:
    """Return an artifact as a section."""
    made = f"`{kind_of.KIND}.json`, made by {', '.join(f'`{verb}`' for verb in makers(kind_of.KIND))}."
    lines = [f"## {kind_of.__name__}", "", made, "", plain(inspect.getdoc(kind_of)), ""]
    if is_dataclass(kind_of):
        lines.append(table(("field", "type", "what it holds"), *fields_of(kind_of)))
    for name in re.findall(r"(\w+_SCHEMA)\.validate", inspect.getsource(kind_of)):
        heads = ("column", "type", "what it holds")
        lines += [f"Columns, as `{name}` checks them:", "", table(heads, *columns(kind_of, name))]
    return "\n".join(lines)


def makers(kind: str) -> list[str]:
    """Return the verbs that make a kind."""
    return [verb for verb, kinds in OUTPUTS.items() if kind in kinds]


def fields_of(kind_of: type) -> list[tuple[str, ...]]:
    """Return the fields of a dataclass, with the comments beside them."""
    source = inspect.getsource(kind_of).replace(kind_of.__doc__, "")
    return [line_of(each.name, rf"^    {each.name}: (?P<type>[^=#\n]+)", source) for each in fields(kind_of)]


def columns(kind_of: type, schema: str) -> list[tuple[str, ...]]:
    """Return the columns of a pandera schema in the module of a class, with the comments beside them."""
    module = inspect.getmodule(kind_of)
    source = inspect.getsource(module).partition(f"{schema} = pa.DataFrameSchema(")[2].partition("\n)\n")[0]
    source = source.replace("{LABEL}", artifacts.LABEL).replace("{META}", artifacts.META)
    source = source.replace(": number()", ": pa.Column(float)")
    found = []
    for name in getattr(module, schema).columns:
        _, *rest = line_of(name, rf'^ +f?"{re.escape(name)}": pa\.Column\((?P<type>\w+)', source)
        found.append((f"`{name.removeprefix('^').replace('.+$', '<name>')}`", *rest))
    return found


def line_of(name: str, pattern: str, source: str) -> tuple[str, ...]:
    """Return name, type and comment of the line of source that declares something."""
    found = re.search(pattern + r"[^#\n]*(?:# (?P<comment>.+))?$", source, re.MULTILINE)
    return f"`{name}`", f"`{found['type'].strip()}`", found["comment"] or ""


PAGES = {"params.md": params_page, "cli.md": cli_page, "artifacts.md": artifacts_page}


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
