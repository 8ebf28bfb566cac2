"""Tables of the log: entries, relations, the head, processes, presence, topics, messages,
handlers of changes, and webhooks."""

from __future__ import annotations

from realtime.models.log import DeadLetter as DeadLetter
from realtime.models.log import Handler as Handler
from realtime.models.log import HandlerDone as HandlerDone
from realtime.models.log import HistoryEntry as HistoryEntry
from realtime.models.log import HistoryTable as HistoryTable
from realtime.models.log import LogHead as LogHead
from realtime.models.log import Message as Message
from realtime.models.log import NotInFixtures as NotInFixtures
from realtime.models.log import NumberedEntries as NumberedEntries
from realtime.models.log import PassingBroadcast as PassingBroadcast
from realtime.models.log import PresenceMember as PresenceMember
from realtime.models.log import PresenceNumber as PresenceNumber
from realtime.models.log import Process as Process
from realtime.models.log import RandomId as RandomId
from realtime.models.log import Receipt as Receipt
from realtime.models.log import Topic as Topic
from realtime.models.log import WalEntry as WalEntry
from realtime.models.log import WalNumber as WalNumber
from realtime.models.log import WalRelation as WalRelation
from realtime.models.log import Webhook as Webhook
from realtime.models.log import WebhookDelivery as WebhookDelivery
from realtime.models.log import every_webhook_event as every_webhook_event
from realtime.models.log import webhook_secret as webhook_secret
