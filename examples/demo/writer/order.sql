\set customer random_zipfian(1, 5000, 1.2)
\set quantity random(1, 5)
\set cents random(100, 9900)
BEGIN;
INSERT INTO shop.orders (customer_id) VALUES (:customer) RETURNING order_id AS id \gset
INSERT INTO shop.items VALUES (:id, 1, 'tea', :quantity, :cents / 100.0), (:id, 2, 'cups', 1, 4.50);
COMMIT;
