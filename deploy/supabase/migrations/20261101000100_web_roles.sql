-- The roles of Supabase's web tier, and the schema for partitions.
--
-- On Supabase the roles exist. Elsewhere they are made here if the owner may make roles; if not, the
-- message says what to ask a superuser for. They cannot log in: grants to them describe what the web
-- tier may see, and cost nothing where there is none.

do $$
declare
    missing text[];
    missing_role text;
begin
    select array_agg(wanted) into missing
    from unnest(array['anon', 'authenticated', 'service_role']) as wanted
    where not exists (select from pg_catalog.pg_roles where rolname = wanted);

    foreach missing_role in array coalesce(missing, array[]::text[]) loop
        execute format('create role %I nologin', missing_role);
    end loop;
exception
    when insufficient_privilege then
        raise exception 'the database has no role %, and % may not create it',
            array_to_string(missing, ', '), current_user
            using errcode = 'insufficient_privilege',
                hint = 'As a superuser run: create role '
                    || array_to_string(missing, ' nologin; create role ') || ' nologin;';
end
$$;

-- Partitions live here, out of reach of Supabase's REST interface, which exposes `public` only.
create schema kite_parts;
revoke all on schema kite_parts from public, anon, authenticated, service_role;
comment on schema kite_parts is 'Partitions of the tables in public; read the parents instead.';
