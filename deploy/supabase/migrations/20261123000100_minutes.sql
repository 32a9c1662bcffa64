-- Why a gap cannot be filled, and which sessions were held against the broker's price history.

alter table public.gaps add column reason text not null default '';
comment on column public.gaps.reason is
    'Why it is unfillable: no_trade, halted, beyond_history, no_history, incomplete, tick_series; else empty.';

create table public.session_checks (
    ticker text collate "C" not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    bars integer check (bars >= 0),
    checked_at timestamptz not null default now(),
    primary key (started_at, ticker),
    check (started_at < ended_at)
);
comment on table public.session_checks is
    'Sessions of tickers that were compared with price history when they were over, and made equal to it.';
comment on column public.session_checks.bars is
    'How many minutes of the session have a bar, by price history; null: it has nothing to compare with.';

alter table public.session_checks enable row level security;
revoke all on public.session_checks from public, anon, authenticated, service_role;
