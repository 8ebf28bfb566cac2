"""The demo's content as plain values: people, policies, tasks, messages.

`load_demo` writes it into the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

PASSWORD: Final = "demo"


@dataclass(frozen=True, slots=True)
class Person:
    """`roles` maps teams to roles. Only people with `signs_in` get a password, the public one."""

    username: str
    first_name: str
    last_name: str
    roles: dict[str, str]
    note: str = ""
    signs_in: bool = False
    edits_policies: bool = False

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}"

    @property
    def teams(self) -> list[str]:
        return list(self.roles)


ADMIN: Final = "admin"

PEOPLE: Final = (
    Person(
        "ada",
        "Ada",
        "Osei",
        {"Stage": "lead", "Kitchen": "member"},
        "Leads Stage and helps in Kitchen. May switch policies in the admin.",
        signs_in=True,
        edits_policies=True,
    ),
    Person("ben", "Ben", "Lindqvist", {"Kitchen": "lead"}, "Leads Kitchen.", signs_in=True),
    Person("cleo", "Cleo", "Marín", {"Gates": "lead"}, "Leads Gates.", signs_in=True),
)

COLLEAGUES: Final = (
    Person("dana", "Dana", "Kim", {"Stage": "member"}),
    Person("elif", "Elif", "Arslan", {"Kitchen": "member"}),
    Person("femi", "Femi", "Adeyemi", {"Gates": "member"}),
)

TEAMS: Final = ("Gates", "Kitchen", "Stage")

# Held by everyone in the demo through the group "Demo people". A permission alone shows nothing:
# the policies below decide for which rows it counts.
GROUP: Final = "Demo people"
GROUP_PERMISSIONS: Final = (
    "demo.view_team",
    "demo.view_membership",
    "demo.view_task",
    "demo.add_task",
    "demo.change_task",
    "demo.delete_task",
    "demo.view_message",
    "demo.add_message",
)
EDITORS: Final = "Demo policy editors"
EDITORS_PERMISSIONS: Final = (
    "auth.view_permission",
    "auth_rls.view_policy",
    "auth_rls.change_policy",
)


@dataclass(frozen=True, slots=True)
class PolicySeed:
    name: str
    permission: str
    using: Any = None
    with_check: Any = None
    audience: str = "permission"


_MY_TEAMS: Final = {"select": "team", "from": "demo.Membership", "where": {"user": "$user.id"}}
_TOPICS_OF_MY_TEAMS: Final = {"topic__in": {**_MY_TEAMS, "prefix": "team:"}}
_LED_BY_ME: Final = {**_MY_TEAMS, "where": {"user": "$user.id", "role": "lead"}}

POLICIES: Final = (
    PolicySeed(
        "Teams: everyone signed in sees their names",
        "demo.view_team",
        using=True,
        audience="authenticated",
    ),
    PolicySeed(
        "Memberships: people see those of their teams",
        "demo.view_membership",
        using={"team__in": _MY_TEAMS},
    ),
    PolicySeed(
        "Tasks: members see those of their teams",
        "demo.view_task",
        using={"team__in": _MY_TEAMS},
    ),
    PolicySeed(
        "Tasks: everyone signed in sees public ones",
        "demo.view_task",
        using={"is_public": True},
        audience="authenticated",
    ),
    PolicySeed(
        "Tasks: owners see their own",
        "demo.view_task",
        using={"owner": "$user.id"},
    ),
    PolicySeed(
        "Tasks: members add to their teams, in their own name",
        "demo.add_task",
        with_check={"owner": "$user.id", "team__in": _MY_TEAMS},
    ),
    PolicySeed(
        "Tasks: members change those of their teams",
        "demo.change_task",
        using={"team__in": _MY_TEAMS},
    ),
    PolicySeed(
        "Tasks: owners delete their own",
        "demo.delete_task",
        using={"owner": "$user.id"},
    ),
    PolicySeed(
        "Tasks: leads delete those of their teams",
        "demo.delete_task",
        using={"team__in": _LED_BY_ME},
    ),
    PolicySeed(
        "Messages: members read those of their teams",
        "demo.view_message",
        using={"team__in": _MY_TEAMS},
    ),
    PolicySeed(
        "Messages: everyone signed in reads public ones",
        "demo.view_message",
        using={"is_public": True},
        audience="authenticated",
    ),
    PolicySeed(
        "Messages: authors read their own",
        "demo.view_message",
        using={"author": "$user.id"},
    ),
    PolicySeed(
        "Messages: people write to their teams or to everyone",
        "demo.add_message",
        with_check={
            "all": [
                {"author": "$user.id"},
                {"any": [{"team__in": _MY_TEAMS}, {"team__isnull": True, "is_public": True}]},
            ]
        },
    ),
    PolicySeed(
        "Rooms: members hear what is said in those of their teams",
        "realtime.receive_broadcast",
        using=_TOPICS_OF_MY_TEAMS,
        audience="authenticated",
    ),
    PolicySeed(
        "Rooms: members speak in those of their teams",
        "realtime.send_broadcast",
        using=_TOPICS_OF_MY_TEAMS,
        audience="authenticated",
    ),
    PolicySeed(
        "Rooms: members see who is in those of their teams",
        "realtime.view_presence",
        using=_TOPICS_OF_MY_TEAMS,
        audience="authenticated",
    ),
    PolicySeed(
        "Rooms: members are seen in those of their teams",
        "realtime.track_presence",
        using=_TOPICS_OF_MY_TEAMS,
        audience="authenticated",
    ),
)


@dataclass(frozen=True, slots=True)
class TaskSeed:
    team: str
    title: str
    status: str
    owner: str
    assignee: str | None = None
    is_public: bool = False


# Most are owned by colleagues: with the policy on teams switched off, nearly nothing is left.
TASKS: Final = (
    TaskSeed("Stage", "Book the string quartet for Sunday", "todo", "dana", "ada"),
    TaskSeed("Stage", "Rig the rain cover over the mixing desk", "todo", "dana", "dana"),
    TaskSeed("Stage", "Publish the running order", "doing", "dana", "ada", is_public=True),
    TaskSeed("Stage", "Sound check with the brass band", "doing", "dana"),
    TaskSeed("Stage", "Rent the dance floor", "done", "ada", "dana"),
    TaskSeed("Kitchen", "Taste the pumpkin soup, batch two", "todo", "elif", "elif"),
    TaskSeed("Kitchen", "Label everything with nuts in it", "todo", "elif", "ben"),
    TaskSeed("Kitchen", "Find a second pizza oven", "doing", "elif", "ben"),
    TaskSeed("Kitchen", "Order 400 compostable bowls", "doing", "elif", "ada"),
    TaskSeed("Kitchen", "Pin the menu to the notice board", "done", "elif", "elif", is_public=True),
    TaskSeed("Gates", "Print the wristbands", "todo", "femi", "femi"),
    TaskSeed("Gates", "Brief the volunteers at the north gate", "todo", "femi", "cleo"),
    TaskSeed("Gates", "Share the map of step-free ways in", "doing", "femi", "cleo", True),
    TaskSeed("Gates", "Test the ticket scanners offline", "done", "femi", "femi"),
)


@dataclass(frozen=True, slots=True)
class MessageSeed:
    author: str
    body: str
    team: str | None = None
    minutes_ago: int = 0


MESSAGES: Final = (
    MessageSeed("femi", "Gates open at ten on Saturday. Tell your people!", None, 190),
    MessageSeed("dana", "The quartet asks for a dry corner to tune in.", "Stage", 150),
    MessageSeed("elif", "Batch one of the soup was far too salty.", "Kitchen", 95),
    MessageSeed("ben", "Then batch two gets the good pumpkins.", "Kitchen", 92),
    MessageSeed("cleo", "Scanners survived an hour without network.", "Gates", 60),
    MessageSeed("ada", "Running order goes up tonight.", "Stage", 31),
)
