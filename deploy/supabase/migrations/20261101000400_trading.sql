-- The paper account: for nobody's eyes but the owner's (and the local reader's).

create table public.orders (
    account text collate "C" not null,
    id text collate "C" not null,
    symbol text collate "C" not null,
    underlying text collate "C" not null,
    side text not null check (side in ('buy', 'sell')),
    effect text not null check (effect in ('open', 'close')),
    kind text not null check (kind in ('market', 'limit')),
    quantity integer not null check (quantity > 0),
    limit_price numeric(12, 4) check (limit_price > 0),
    state text not null
        check (state in ('open', 'partially_filled', 'filled', 'cancelled', 'rejected', 'expired')),
    filled_quantity integer not null default 0 check (filled_quantity between 0 and quantity),
    average_price numeric(18, 6),
    strategy text not null,
    signal_id text collate "C",
    reason text not null,
    placed_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (account, id)
);
create index orders_account_placed_at on public.orders (account, placed_at);
comment on table public.orders is 'Orders of the paper account, latest state.';

create table public.trades (
    account text collate "C" not null,
    id text collate "C" not null,
    order_id text collate "C" not null,
    symbol text collate "C" not null,
    underlying text collate "C" not null,
    "timestamp" timestamptz not null,
    side text not null check (side in ('buy', 'sell')),
    quantity integer not null check (quantity > 0),
    price numeric(12, 4) not null check (price >= 0),
    fees numeric(18, 6) not null,
    realized_pnl numeric(18, 6) not null,
    primary key (account, id)
);
create index trades_account_timestamp on public.trades (account, "timestamp");
comment on table public.trades is 'Fills, exercises and settlements of the paper account, append-only.';

create table public.positions (
    account text collate "C" not null,
    symbol text collate "C" not null,
    underlying text collate "C" not null,
    quantity integer not null,
    average_price numeric(18, 6) not null,
    realized_pnl numeric(18, 6) not null,
    opened_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (account, symbol)
);
comment on table public.positions is 'What the paper account holds; short positions are negative.';

create table public.daily_pnl (
    account text collate "C" not null,
    day date not null,
    realized_pnl numeric(18, 6) not null,
    unrealized_pnl numeric(18, 6) not null,
    fees numeric(18, 6) not null,
    trades integer not null check (trades >= 0),
    cash numeric(18, 6) not null,
    updated_at timestamptz not null,
    primary key (account, day)
);
comment on table public.daily_pnl is 'Profit and loss of the paper account per New York day.';

do $$
declare
    name text;
begin
    foreach name in array array['orders', 'trades', 'positions', 'daily_pnl'] loop
        execute format('alter table public.%I enable row level security', name);
        execute format(
            'revoke all on public.%I from public, anon, authenticated, service_role', name);
    end loop;
end
$$;
