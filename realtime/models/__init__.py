"""The tables of the app, a module for those of each part. Code imports them from here."""

from __future__ import annotations

from realtime.models.handlers import DeadLetter as DeadLetter
from realtime.models.handlers import Handler as Handler
from realtime.models.handlers import HandlerDone as HandlerDone
from realtime.models.history import HistoryEntry as HistoryEntry
from realtime.models.history import HistoryTable as HistoryTable
from realtime.models.log import LogHead as LogHead
from realtime.models.log import NumberedEntries as NumberedEntries
from realtime.models.log import WalEntry as WalEntry
from realtime.models.log import WalNumber as WalNumber
from realtime.models.log import WalRelation as WalRelation
from realtime.models.own_table import NotInFixtures as NotInFixtures
from realtime.models.presence import PresenceMember as PresenceMember
from realtime.models.presence import PresenceNumber as PresenceNumber
from realtime.models.process import Process as Process
from realtime.models.receipt import Receipt as Receipt
from realtime.models.topics import Message as Message
from realtime.models.topics import PassingBroadcast as PassingBroadcast
from realtime.models.topics import RandomId as RandomId
from realtime.models.topics import Topic as Topic
from realtime.models.webhooks import Webhook as Webhook
from realtime.models.webhooks import WebhookDelivery as WebhookDelivery
from realtime.models.webhooks import every_webhook_event as every_webhook_event
from realtime.models.webhooks import webhook_secret as webhook_secret
