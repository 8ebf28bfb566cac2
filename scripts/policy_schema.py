"""Writes docs/reference/policy.schema.json: the language of policies as a JSON Schema.

Made of the operators and bounds that the parser itself uses. A schema knows no tables: names of
columns, and which operator suits which column, are checked when a policy is saved.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from auth_rls.predicates.operators import OPERATORS, Form, Operator  # noqa: E402
from auth_rls.predicates.parse import MAX_TEXT, MAX_VALUES  # noqa: E402

PATH = ROOT / "docs" / "reference" / "policy.schema.json"
_REFERENCE = r"\$(role|user\.[^.]+|claims\.[^.]+(\.[^.]+)*)"
_FORMS = {
    Form.VALUE: "value",
    Form.SET: "members",
    Form.PAIR: "range",
    Form.FLAG: "flag",
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _compared(operators: list[Operator]) -> dict[str, Any]:
    """By the pattern of a lookup's name, what it is compared with."""
    suffixed = "|".join(operator.name for operator in operators)
    patterns = {
        f"__{operator.name}$": _ref(_FORMS[operator.form])
        for operator in operators
        if operator.form is not Form.VALUE
    }
    plain = "|".join(o.name for o in operators if o.form is Form.VALUE)
    patterns[f"__({plain})$"] = _ref("value")
    patterns[f"^(?!.*__({suffixed})$)"] = _ref("value")
    return patterns


def schema() -> dict[str, Any]:
    """The schema of a policy, whose `$defs/predicate` is that of `using` and `with_check`."""
    operators = [operator for operator in OPERATORS.values() if operator.in_policies]
    connectives = {
        "all": {"type": "array", "items": _ref("predicate")},
        "any": {"type": "array", "items": _ref("predicate")},
        "not": _ref("predicate"),
    }
    conditions = {
        "type": "object",
        "minProperties": 1,
        "not": {"anyOf": [{"required": [word]} for word in connectives]},
        "propertyNames": {
            "anyOf": [{"pattern": r"^[^$]"}, {"pattern": rf"^{_REFERENCE}(__\w+)?$"}]
        },
        "patternProperties": _compared(operators),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A policy of Rowcast",
        "type": "object",
        "required": ["name", "permission"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "permission": {"type": "string", "pattern": r"^\w+\.\w+$"},
            "audience": {"enum": ["permission", "authenticated", "anyone"]},
            "mode": {"enum": ["permissive", "restrictive"]},
            "using": {"anyOf": [_ref("predicate"), {"type": "null"}]},
            "with_check": {"anyOf": [_ref("predicate"), {"type": "null"}]},
            "enabled": {"type": "boolean"},
        },
        "$defs": {
            "predicate": {
                "anyOf": [
                    {"type": "boolean"},
                    *(
                        {
                            "type": "object",
                            "required": [word],
                            "additionalProperties": False,
                            "properties": {word: inside},
                        }
                        for word, inside in connectives.items()
                    ),
                    conditions,
                ]
            },
            "value": {
                "anyOf": [
                    {"type": ["number", "boolean"]},
                    {
                        "type": "string",
                        "maxLength": MAX_TEXT,
                        "pattern": rf"^(?!\$)|^\$\$|^{_REFERENCE}$",
                    },
                ]
            },
            "reference": {"type": "string", "pattern": f"^{_REFERENCE}$"},
            "members": {
                "anyOf": [
                    {"type": "array", "maxItems": MAX_VALUES, "items": _ref("value")},
                    _ref("reference"),
                    _ref("select"),
                ]
            },
            "range": {"type": "array", "minItems": 2, "maxItems": 2, "items": _ref("value")},
            "flag": {"type": "boolean"},
            "select": {
                "type": "object",
                "required": ["select", "from"],
                "additionalProperties": False,
                "properties": {
                    "select": {"type": "string"},
                    "from": {"type": "string", "pattern": r"^\w+\.\w+$"},
                    "where": _ref("predicate"),
                    "prefix": {"type": "string", "maxLength": MAX_TEXT},
                },
            },
        },
    }


def text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text())
