"""The JSON Schema of policies is that of the parser, and takes what the parser takes."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import jsonschema
import pytest

from auth_rls.predicates.kinds import Kind
from auth_rls.predicates.operators import OPERATORS
from auth_rls.predicates.parse import PredicateError, TableSchema, parse
from tests.support.source import ROOT

FILE = ROOT / "docs" / "reference" / "policy.schema.json"
SCHEMA = json.loads(FILE.read_text())
PREDICATE = {**SCHEMA, "$ref": "#/$defs/predicate"}
for key in ("type", "required", "additionalProperties", "properties"):
    del PREDICATE[key]

TABLE = TableSchema(
    "zoo.Note",
    {
        "title": ("title", Kind.TEXT),
        "score": ("score", Kind.INT),
        "team": ("team_id", Kind.INT),
        "is_public": ("is_public", Kind.BOOL),
    },
)


def accepted(predicate: Any) -> bool:
    return jsonschema.Draft202012Validator(PREDICATE).is_valid(predicate)


def parsed(predicate: Any) -> bool:
    try:
        parse(predicate, TABLE, lambda label: TABLE)
    except PredicateError:
        return False
    return True


def test_the_file_is_what_the_operators_of_today_give() -> None:
    written = runpy.run_path(str(ROOT / "scripts" / "policy_schema.py"))["text"]()
    assert FILE.read_text() == written, "run scripts/policy_schema.py"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_example_of_the_page_about_policies_is_accepted() -> None:
    text = (ROOT / "docs" / "reference" / "policies.md").read_text()
    blocks = re.findall(r"^```json\n(.*?)^```", text, re.M | re.S)
    examples = [json.loads(line) for block in blocks for line in block.splitlines()]
    assert len(examples) >= 8
    assert [example for example in examples if not accepted(example)] == []


RIGHT: list[Any] = [
    True,
    False,
    {"title": "a", "score__gte": 1.0},
    {"all": []},
    {"any": [True, {"not": {"is_public": True}}]},
    {"title": "$$5"},
    {"title": "$claims.app.tenant"},
    {"$claims.aal": "aal2"},
    {"$role__in": ["anon", "authenticated"]},
    {"score__in": "$claims.scores"},
    {"score__in": [1, "$user.id"]},
    {"score__range": [1, 2]},
    {"title__isnull": True},
    {"team__in": {"select": "team", "from": "zoo.Note"}},
    {"team__in": {"select": "team", "from": "zoo.Note", "where": {"title": "x"}}},
    {"title__in": {"select": "team", "from": "zoo.Note", "prefix": "room:"}},
]
WRONG: list[Any] = [
    None,
    {},
    [],
    "true",
    {"all": [], "title": "x"},
    {"not": []},
    {"any": {}},
    {"title": None},
    {"title": "$user"},
    {"title": "$users.id"},
    {"score__range": [1]},
    {"title__isnull": 1},
    {"score__in": 5},
    {"team": {"select": "team", "from": "zoo.Note"}},
    {"team__in": {"select": "team"}},
    {"team__in": {"select": "team", "from": "zoo.Note", "filter": True}},
]


@pytest.mark.parametrize("predicate", RIGHT, ids=json.dumps)
def test_what_the_parser_takes_the_schema_takes(predicate: Any) -> None:
    assert parsed(predicate) and accepted(predicate)


@pytest.mark.parametrize("predicate", WRONG, ids=json.dumps)
def test_what_has_no_form_of_a_predicate_both_refuse(predicate: Any) -> None:
    assert not parsed(predicate) and not accepted(predicate)


def test_every_operator_of_policies_has_its_form_in_the_schema() -> None:
    patterns = " ".join(SCHEMA["$defs"]["predicate"]["anyOf"][-1]["patternProperties"])
    for operator in OPERATORS.values():
        assert bool(re.search(rf"\b_*{operator.name}\b", patterns)) == operator.in_policies
