-- soak.sql: tables, their logs, and stream tables over them.
--
-- Every change of a base table is logged with the transaction that made it, by triggers of this
-- file, which know nothing of the extension. So what a base table held at any snapshot can be told
-- later: orders_at(snapshot) and so on. The sequences tell the order of changes of one row, since
-- whoever changes it holds its lock; a TRUNCATE waits for all others.

CREATE TABLE customer (id int PRIMARY KEY, region int NOT NULL, name text);
CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, amount int NOT NULL, state int NOT NULL);
CREATE TABLE small (k int NOT NULL, v int);
INSERT INTO customer SELECT i, i % 7, 'name ' || i FROM generate_series(1, 60) i;
INSERT INTO orders SELECT i, 1 + i % 60, i % 100, i % 3 FROM generate_series(1, 600) i;
INSERT INTO small SELECT i % 5, i % 9 FROM generate_series(1, 40) i;

CREATE TABLE customer_log (seq bigserial, xid xid8 DEFAULT pg_current_xact_id(), op char, LIKE customer);
CREATE TABLE orders_log (seq bigserial, xid xid8 DEFAULT pg_current_xact_id(), op char, LIKE orders);
CREATE TABLE small_log (seq bigserial, xid xid8 DEFAULT pg_current_xact_id(), n int, k int, v int);

CREATE FUNCTION log_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN INSERT INTO public.customer_log (op, id, region, name) VALUES ('D', OLD.id, OLD.region, OLD.name); END IF;
	IF TG_OP <> 'DELETE' THEN INSERT INTO public.customer_log (op, id, region, name) VALUES ('I', NEW.id, NEW.region, NEW.name); END IF;
	RETURN NULL;
END $$;
CREATE FUNCTION log_orders() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN INSERT INTO public.orders_log (op, id, customer, amount, state) VALUES ('D', OLD.id, OLD.customer, OLD.amount, OLD.state); END IF;
	IF TG_OP <> 'DELETE' THEN INSERT INTO public.orders_log (op, id, customer, amount, state) VALUES ('I', NEW.id, NEW.customer, NEW.amount, NEW.state); END IF;
	RETURN NULL;
END $$;
-- Rows without a key: counts per row; n is null where everything went.
CREATE FUNCTION log_small() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'TRUNCATE' THEN INSERT INTO public.small_log (n) VALUES (NULL); RETURN NULL; END IF;
	IF TG_OP <> 'INSERT' THEN INSERT INTO public.small_log (n, k, v) VALUES (-1, OLD.k, OLD.v); END IF;
	IF TG_OP <> 'DELETE' THEN INSERT INTO public.small_log (n, k, v) VALUES (1, NEW.k, NEW.v); END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON customer FOR EACH ROW EXECUTE FUNCTION log_customer();
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION log_orders();
CREATE TRIGGER log AFTER INSERT OR UPDATE OR DELETE ON small FOR EACH ROW EXECUTE FUNCTION log_small();
CREATE TRIGGER log_truncate AFTER TRUNCATE ON small FOR EACH STATEMENT EXECUTE FUNCTION log_small();

CREATE FUNCTION customer_at(at pg_snapshot) RETURNS TABLE (id int, region int, name text) LANGUAGE sql STABLE AS $$
	SELECT id, region, name FROM (SELECT DISTINCT ON (id) * FROM public.customer_log WHERE pg_visible_in_snapshot(xid, at) ORDER BY id, seq DESC) l WHERE op = 'I'
$$;
CREATE FUNCTION orders_at(at pg_snapshot) RETURNS TABLE (id int, customer int, amount int, state int) LANGUAGE sql STABLE AS $$
	SELECT id, customer, amount, state FROM (SELECT DISTINCT ON (id) * FROM public.orders_log WHERE pg_visible_in_snapshot(xid, at) ORDER BY id, seq DESC) l WHERE op = 'I'
$$;
CREATE FUNCTION small_at(at pg_snapshot) RETURNS TABLE (k int, v int) LANGUAGE sql STABLE AS $$
	SELECT k, v FROM (
		SELECT k, v, sum(n) AS n FROM public.small_log
		WHERE pg_visible_in_snapshot(xid, at) AND n IS NOT NULL
			AND seq > coalesce((SELECT max(seq) FROM public.small_log WHERE n IS NULL AND pg_visible_in_snapshot(xid, at)), 0)
		GROUP BY k, v) g, generate_series(1, n)
$$;

-- When nobody writes: forget how it came to be. Transaction 3 is before every snapshot.
CREATE FUNCTION forget_logs() RETURNS void LANGUAGE sql AS $$
	TRUNCATE public.customer_log, public.orders_log, public.small_log;
	INSERT INTO public.customer_log (xid, op, id, region, name) SELECT '3', 'I', id, region, name FROM public.customer;
	INSERT INTO public.orders_log (xid, op, id, customer, amount, state) SELECT '3', 'I', id, customer, amount, state FROM public.orders;
	INSERT INTO public.small_log (xid, n, k, v) SELECT '3', 1, k, v FROM public.small;
$$;
SELECT forget_logs();
ANALYZE;

-- Diamonds (aligned and atomic), a chain, and one of each kind of maintenance. Names are not qualified
-- in these queries: the tester puts the tables as they were in their place.
SELECT pgtrickle.create_stream_table('s_region', 'SELECT c.region, count(*) AS n, sum(o.amount) AS amount FROM orders o JOIN customer c ON c.id = o.customer GROUP BY c.region', schedule => '100ms');
SELECT pgtrickle.create_stream_table('s_regions', 'SELECT count(*) AS n, sum(n) AS orders, max(amount) AS most FROM s_region', schedule => '100ms');
SELECT pgtrickle.create_stream_table('s_open', 'SELECT id, customer, amount FROM orders WHERE state = 0');
SELECT pgtrickle.create_stream_table('s_paid', 'SELECT customer, sum(amount) AS total, count(*) AS n FROM orders WHERE state = 1 GROUP BY customer');
SELECT pgtrickle.create_stream_table('s_meet', 'SELECT o.id, o.customer, o.amount, p.total, p.n FROM s_open o LEFT JOIN s_paid p ON p.customer = o.customer', schedule => '100ms');
SELECT pgtrickle.create_stream_table('s_least', 'SELECT k, min(v) AS v FROM small GROUP BY k');
SELECT pgtrickle.create_stream_table('s_most', 'SELECT k, max(v) AS v FROM small GROUP BY k');
SELECT pgtrickle.create_stream_table('s_whole', 'SELECT k, l.v AS least, m.v AS most, s.n FROM s_least l JOIN s_most m USING (k) JOIN (SELECT k, count(*) AS n FROM small GROUP BY k) s USING (k)',
	schedule => '100ms', diamond_consistency => 'atomic');
SELECT pgtrickle.create_stream_table('s_top', 'SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 10', schedule => '200ms');
SELECT pgtrickle.create_stream_table('s_without', 'SELECT id, name FROM customer c WHERE NOT EXISTS (SELECT FROM orders o WHERE o.customer = c.id AND o.state = 2)', schedule => '200ms');
SELECT pgtrickle.create_stream_table('s_kinds', 'SELECT DISTINCT v, k % 2 AS odd FROM small', schedule => '100ms');
SELECT pgtrickle.create_stream_table('s_full', 'SELECT region, count(*) AS n FROM customer GROUP BY region', schedule => '1s', refresh_mode => 'FULL');
SELECT pgtrickle.create_stream_table('s_altered', 'SELECT state, count(*) AS n FROM orders GROUP BY state', schedule => '100ms');
