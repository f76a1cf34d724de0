-- AUTO by forecast: what was learned is set by hand here, so that no machine is too slow for it.
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS pg_trickle;
CREATE SCHEMA forecast;
SET search_path = forecast, public;
SET pg_trickle.prediction_min_samples = 5;

CREATE TABLE t (id int PRIMARY KEY, g int, v int);
INSERT INTO t SELECT i, i % 4, i FROM generate_series(1, 40) i;
SELECT pgtrickle.create_stream_table('s', 'SELECT g, sum(v) AS total FROM t GROUP BY g');

CREATE FUNCTION last_refresh() RETURNS TABLE (action text, reason text, forecast float8, forecast_full float8) LANGUAGE sql AS $$
	SELECT action, refresh_reason, forecast_ms, forecast_full_ms FROM pgtrickle.pgt_refresh_history
	WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 's') ORDER BY refresh_id DESC LIMIT 1 $$;
CREATE FUNCTION wrong() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM ((TABLE s EXCEPT ALL SELECT g, sum(v) FROM t GROUP BY g)
		UNION ALL (SELECT g, sum(v) FROM t GROUP BY g EXCEPT ALL TABLE s)) x $$;
-- samples, milliseconds of FULL; then per decade of rows: refreshes, mean rows, mean milliseconds.
CREATE FUNCTION learned(samples int, full_ms float8, VARIADIC decades float8[]) RETURNS void LANGUAGE sql AS $$
	UPDATE pgtrickle.pgt_frontiers SET cost_model = (ARRAY[samples, full_ms, 0, 0]::float4[] || decades::float4[]
		|| array_fill(0::float4, ARRAY[30 - array_length(decades, 1)])) $$;

-- Nothing is known yet: the share of changed rows decides.
UPDATE t SET v = v + 1 WHERE id = 1;
SELECT pgtrickle.refresh_stream_table('s');
SELECT action, reason, forecast IS NULL AS unknown FROM last_refresh();
-- One sample is too few.
SELECT learned(1, 100, 1, 1, 900);
UPDATE t SET v = v + 1 WHERE id = 1;
SELECT forecast_ms, forecast_full_ms, decision, confidence FROM pgtrickle.df_threshold_advice;
SELECT pgtrickle.refresh_stream_table('s');
SELECT * FROM last_refresh();
-- Four samples are too few, five are enough; a mean of three is known well.
SELECT learned(4, 100, 1, 5, 900);
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT forecast_ms, forecast_full_ms, decision, reason, confidence FROM pgtrickle.df_threshold_advice;
SELECT pgtrickle.refresh_stream_table('s');
SELECT * FROM last_refresh();
SELECT learned(5, 100, 1, 4, 900);
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT pgt_name, pending_rows, forecast_ms, forecast_full_ms, decision, reason, confidence FROM pgtrickle.df_threshold_advice;
SELECT pgtrickle.refresh_stream_table('s');
SELECT * FROM last_refresh();
SELECT wrong();
-- Up to the ratio, and 1.1 times where it is known well.
SELECT choice, count(*), min(samples), max(samples) FROM (VALUES (5, 1, 149), (5, 1, 151), (5, 3, 109), (5, 3, 111), (3, 3, 111), (0, 0, 0)) v (samples, known, ms),
	pgtrickle.forecast(ARRAY[samples, 100, 0, 0, known, 4, ms]::real[] || array_fill(0::real, ARRAY[27]), 4, 0) GROUP BY 1, known, ms ORDER BY known, ms;
-- Between decades on a line, a decade beyond on the same, further off not at all; FULL grows with the sources.
SELECT rows, forecast_ms, forecast_full_ms FROM (VALUES (1), (50), (150), (500), (2000), (30000)) v (rows),
	pgtrickle.forecast(ARRAY[9, 100, 1000, 0,  3, 5, 20,  0, 0, 0,  3, 500, 515]::real[] || array_fill(0::real, ARRAY[21]), rows, 2000) ORDER BY rows;
-- A short refresh is not worth a choice, whatever FULL would take; what another release wrote is not read.
SELECT * FROM pgtrickle.forecast(ARRAY[9, 1, 0, 0, 9, 4, 40]::real[] || array_fill(0::real, ARRAY[27]), 4, 0);
SELECT * FROM pgtrickle.forecast(ARRAY[9, 1, 0, 0, 9, 4, 4000]::real[], 4, 0);
SELECT * FROM pgtrickle.forecast(NULL, NULL, NULL);
-- Only where there is a choice, and not where forecasts are off.
SELECT learned(5, 100, 3, 4, 900);
SET pg_trickle.prediction_min_samples = 0;
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT decision, reason FROM pgtrickle.df_threshold_advice;
SELECT pgtrickle.refresh_stream_table('s');
SELECT * FROM last_refresh();
SET pg_trickle.prediction_min_samples = 5;
SELECT learned(5, 100, 3, 4, 900);
SELECT pgtrickle.alter_stream_table('s', refresh_mode => 'DIFFERENTIAL');
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT decision, reason FROM pgtrickle.df_threshold_advice;
SELECT pgtrickle.refresh_stream_table('s');
SELECT * FROM last_refresh();
SELECT pgtrickle.alter_stream_table('s', refresh_mode => 'AUTO');
-- After 32 choices of FULL in a row it is tried again, and what is found out counts.
DO $$ BEGIN
	PERFORM forecast.learned(5, 60000, 3, 4, 90000);
	FOR i IN 1 .. 40 LOOP
		UPDATE forecast.t SET v = v + 1 WHERE id <= 2;
		PERFORM pgtrickle.refresh_stream_table('forecast.s');
		UPDATE pgtrickle.pgt_frontiers SET cost_model[2] = 60000;
	END LOOP;
END $$;
SELECT string_agg(format('%s %s', n, action), ', ' ORDER BY first) FROM (
	SELECT action, count(*) AS n, min(refresh_id) AS first FROM (
		SELECT refresh_id, action, refresh_id - row_number() OVER (PARTITION BY action ORDER BY refresh_id) AS island
		FROM (SELECT * FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 40) h) h GROUP BY action, island) g;
-- The history says which were tests, with both forecasts.
SELECT refresh_reason, count(*), bool_and(forecast_ms > forecast_full_ms) AS forecast_higher FROM (
	SELECT * FROM pgtrickle.pgt_refresh_history ORDER BY refresh_id DESC LIMIT 40) h GROUP BY 1 ORDER BY 1;
SELECT wrong();
-- So does the advice, before it happens.
SELECT learned(5, 60000, 3, 4, 90000);
UPDATE pgtrickle.pgt_frontiers SET cost_model[4] = 31;
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT decision, reason FROM pgtrickle.df_threshold_advice;

-- The line of the advice: over pg_trickle.prediction_window of the history, and nothing else.
DELETE FROM pgtrickle.pgt_refresh_history;
INSERT INTO pgtrickle.pgt_refresh_history (pgt_id, start_time, action, status, rows_in, duration_ms, initiated_by)
	SELECT pgt_id, clock_timestamp() - h.ago, h.action, h.status, h.n, h.ms, 'MANUAL' FROM pgtrickle.pgt_stream_tables,
		(VALUES ('1 min'::interval, 'DIFFERENTIAL', 'COMPLETED', 100, 30), ('2 min', 'DIFFERENTIAL', 'COMPLETED', 200, 50),
			('3 min', 'DIFFERENTIAL', 'COMPLETED', 300, 70), ('4 min', 'DIFFERENTIAL', 'COMPLETED', 40000, 8010),
			('5 min', 'FULL', 'COMPLETED', 100, 9999), ('6 min', 'DIFFERENTIAL', 'FAILED', 100, 9999),
			('50 min', 'DIFFERENTIAL', 'COMPLETED', 400, 9999)) h (ago, action, status, n, ms) WHERE pgt_name = 's';
SET pg_trickle.prediction_window = 10;
SELECT slope_ms_per_row, intercept_ms, samples, r2 FROM pgtrickle.df_threshold_advice;
RESET pg_trickle.prediction_window;
SELECT samples, r2 < 1 AS noisy FROM pgtrickle.df_threshold_advice;
SET pg_trickle.prediction_window = 5;
UPDATE pgtrickle.pgt_refresh_history SET duration_ms = 500 - duration_ms WHERE rows_in <= 300;
-- More rows never take less; one number of rows makes no line.
UPDATE pgtrickle.pgt_refresh_history SET start_time = start_time - interval '1 hour' WHERE rows_in = 40000;
SELECT slope_ms_per_row, intercept_ms, samples FROM pgtrickle.df_threshold_advice;
UPDATE pgtrickle.pgt_refresh_history SET rows_in = 100;
SELECT slope_ms_per_row, intercept_ms, samples, r2, recommended_threshold FROM pgtrickle.df_threshold_advice;
RESET pg_trickle.prediction_window;

-- Nonsense is refused.
\set ON_ERROR_STOP 0
SET pg_trickle.prediction_window = 4;
SET pg_trickle.prediction_window = '2 d';
SET pg_trickle.prediction_ratio = 0.9;
SET pg_trickle.prediction_ratio = 'NaN';
SET pg_trickle.prediction_ratio = 11;
SET pg_trickle.prediction_min_samples = -1;
SET pg_trickle.prediction_min_samples = 1001;
SET pg_trickle.prediction_min_samples = 'many';
\set ON_ERROR_STOP 1

-- A differential refresh that takes much longer than FULL is given up. The first call sleeps.
CREATE SEQUENCE calls;
CREATE FUNCTION slow(v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
	IF pg_sequence_last_value('forecast.calls') IS NOT NULL AND nextval('forecast.calls') = 2 THEN PERFORM pg_sleep(100); END IF;
	RETURN v;
END $$;
SELECT pgtrickle.drop_stream_table('s');
SELECT pgtrickle.create_stream_table('s', 'SELECT g, sum(slow(v)) AS total FROM t GROUP BY g');
SELECT nextval('calls');
SELECT learned(0, 20, 0);
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT pgtrickle.refresh_stream_table('s');
SELECT action, reason FROM last_refresh();
SELECT wrong();
-- It is known to be slow now, and at least twice as slow as the limit.
SELECT cost_model[5], cost_model[6], cost_model[7] >= 500 FROM pgtrickle.pgt_frontiers;
UPDATE t SET v = v + 1 WHERE id <= 2;
SELECT pgtrickle.refresh_stream_table('s');
SELECT action, reason FROM last_refresh();
-- Who else cancels it cancels all of it.
SELECT learned(0, 1000000, 0);
SELECT setval('calls', 1);
UPDATE t SET v = v + 1 WHERE id <= 2;
SET statement_timeout = '300ms';
\set ON_ERROR_STOP 0
SELECT pgtrickle.refresh_stream_table('s');
\set ON_ERROR_STOP 1
RESET statement_timeout;
SELECT wrong() > 0 AS unchanged;
SELECT pgtrickle.refresh_stream_table('s');
SELECT action, reason FROM last_refresh();
SELECT wrong();
-- The limit is not left behind.
SELECT pg_sleep(0.2);

DROP SCHEMA forecast CASCADE;
