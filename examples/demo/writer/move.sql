\set customer random(1, 5000)
\set region random(1, 4)
UPDATE shop.customers SET region = (ARRAY['north', 'east', 'south', 'west'])[:region]
WHERE customer_id = :customer;
