-- stream_tables.sql: four questions that the shop asks all day, each of them a table.
SET search_path = shop;

-- 1. A join of three tables: one row per line of an order.
SELECT pgtrickle.create_stream_table('order_lines', $$
  SELECT i.order_id, i.line, o.customer_id, c.name, c.region, i.product,
         i.quantity * i.price AS amount
  FROM items i
  JOIN orders o ON o.order_id = i.order_id
  JOIN customers c ON c.customer_id = o.customer_id
$$, schedule => '1s');

-- It is an ordinary table, so it takes indexes; this one serves the lines of one customer.
CREATE INDEX ON order_lines (customer_id);

-- 2. An aggregate over that join.
SELECT pgtrickle.create_stream_table('customer_sales', $$
  SELECT customer_id, name, region, count(*) AS lines, sum(amount) AS revenue
  FROM order_lines
  GROUP BY customer_id, name, region
$$, schedule => '1s');

-- 3. A stream table on a stream table on a stream table.
SELECT pgtrickle.create_stream_table('region_sales', $$
  SELECT region, count(*) AS customers, sum(lines) AS lines, sum(revenue) AS revenue
  FROM customer_sales
  GROUP BY region
$$, schedule => '1s');

-- 4. The ten best customers. ORDER BY with LIMIT is computed anew at each refresh in
--    this release, and only the rows that differ are written.
SELECT pgtrickle.create_stream_table('top_customers', $$
  SELECT customer_id, name, region, revenue
  FROM customer_sales
  ORDER BY revenue DESC, customer_id
  LIMIT 10
$$, schedule => '1s');
