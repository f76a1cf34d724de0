\set order random(1, 100000)
DELETE FROM shop.orders WHERE order_id = :order;
