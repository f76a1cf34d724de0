\set order random(1, 100000)
\set quantity random(1, 9)
UPDATE shop.items SET quantity = :quantity WHERE order_id = :order AND line = 2;
