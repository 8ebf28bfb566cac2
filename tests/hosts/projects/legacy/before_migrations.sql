CREATE TABLE "LegacyTickets" (
    "Ticket No." {serial},
    "OWNER" integer NOT NULL,
    "order" text NOT NULL
);
