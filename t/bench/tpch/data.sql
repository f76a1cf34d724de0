-- Rows as functions of their keys, so that every run has the same data at any scale and new
-- orders are made as the first ones were. The driver puts numbers for {{suppliers}} and so on.
--
-- Distributions are those of the specification, with three liberties: order keys have no gaps;
-- comments are short; and ten parts of each kind that a selective query asks for (of Q20's a
-- hundred), and fifty orders above the threshold of Q18, exist at every scale ("planted"), so that no result
-- is empty at a hundredth of the specification's size.

-- One of 0 .. n - 1, evenly.
CREATE FUNCTION tpch_pick(key bigint, salt integer, n integer) RETURNS integer LANGUAGE sql IMMUTABLE
	RETURN ((hashint8extended(key, salt) & 1152921504606846975) % n)::integer;

CREATE FUNCTION tpch_of(list text[], key bigint, salt integer) RETURNS text LANGUAGE sql IMMUTABLE
	RETURN list[1 + tpch_pick(key, salt, cardinality(list))];

CREATE FUNCTION tpch_phone(nation integer, key bigint) RETURNS text LANGUAGE sql IMMUTABLE
	RETURN format('%s-%s-%s-%s', nation + 10, 100 + tpch_pick(key, 901, 900), 100 + tpch_pick(key, 902, 900),
		1000 + tpch_pick(key, 903, 9000));

-- In cents per unit.
CREATE FUNCTION tpch_price(part integer) RETURNS integer LANGUAGE sql IMMUTABLE
	RETURN 90000 + part / 10 % 20001 + 100 * (part % 1000);

-- The suppliers of a part: nth is 0 .. 3.
CREATE FUNCTION tpch_supplier_of(part integer, nth integer) RETURNS integer LANGUAGE sql IMMUTABLE
	RETURN (part + nth * ({{suppliers}} / 4 + (part - 1) / {{suppliers}})) % {{suppliers}} + 1;

INSERT INTO region
	SELECT n - 1, name, 'region ' || n
	FROM unnest('{AFRICA,AMERICA,ASIA,EUROPE,MIDDLE EAST}'::text[]) WITH ORDINALITY AS r(name, n);

INSERT INTO nation
	SELECT n - 1, split_part(entry, ':', 1), split_part(entry, ':', 2)::integer, 'nation ' || n
	FROM unnest('{ALGERIA:0,ARGENTINA:1,BRAZIL:1,CANADA:1,EGYPT:4,ETHIOPIA:0,FRANCE:3,GERMANY:3,INDIA:2,
		INDONESIA:2,IRAN:4,IRAQ:4,JAPAN:2,JORDAN:4,KENYA:0,MOROCCO:0,MOZAMBIQUE:0,PERU:1,CHINA:2,ROMANIA:3,
		SAUDI ARABIA:4,VIETNAM:2,RUSSIA:3,UNITED KINGDOM:3,UNITED STATES:1}'::text[])
		WITH ORDINALITY AS e(entry, n);

INSERT INTO supplier
	SELECT k, 'Supplier#' || lpad(k::text, 9, '0'), 'street ' || k, nation, tpch_phone(nation, k),
		tpch_pick(k, 12, 1099999) / 100.0 - 999.99,
		CASE WHEN k % 200 = 13 THEN 'quick Customer slow Complaints' ELSE 'supplier ' || k END
	FROM generate_series(1, {{suppliers}}) AS k,
		LATERAL (SELECT CASE WHEN k <= 50 THEN k % 25 ELSE tpch_pick(k, 11, 25) END AS nation OFFSET 0) AS s;

INSERT INTO part
	SELECT k,
		CASE WHEN k % ({{parts}} / 100) = 5 THEN 'forest' ELSE tpch_of(colours, k, 21) END
		|| ' ' || tpch_of(colours, k, 22) || ' ' || tpch_of(colours, k, 23) || ' ' || tpch_of(colours, k, 24)
		|| ' ' || tpch_of(colours, k, 25),
		'Manufacturer#' || brand / 10, 'Brand#' || brand,
		CASE planted WHEN 6 THEN 'ECONOMY ANODIZED STEEL' WHEN 7 THEN 'STANDARD POLISHED BRASS'
			ELSE tpch_of('{STANDARD,SMALL,MEDIUM,LARGE,ECONOMY,PROMO}', k, 26)
				|| ' ' || tpch_of('{ANODIZED,BURNISHED,PLATED,POLISHED,BRUSHED}', k, 27)
				|| ' ' || tpch_of('{TIN,NICKEL,BRASS,STEEL,COPPER}', k, 28) END,
		CASE planted WHEN 2 THEN 3 WHEN 3 THEN 5 WHEN 4 THEN 10 WHEN 7 THEN 15 ELSE 1 + tpch_pick(k, 29, 50) END,
		CASE planted WHEN 1 THEN 'MED BOX' WHEN 2 THEN 'SM CASE' WHEN 3 THEN 'MED BAG' WHEN 4 THEN 'LG BOX'
			ELSE tpch_of('{SM,LG,MED,JUMBO,WRAP}', k, 30)
				|| ' ' || tpch_of('{CASE,BOX,BAG,JAR,PKG,PACK,CAN,DRUM}', k, 31) END,
		tpch_price(k) / 100.0, 'part ' || k
	FROM generate_series(1, {{parts}}) AS k,
		LATERAL (SELECT k % ({{parts}} / 10) AS planted,
			'{almond,antique,aquamarine,azure,beige,bisque,black,blanched,blue,blush,brown,burlywood,burnished,
			chartreuse,chiffon,chocolate,coral,cornflower,cornsilk,cream,cyan,dark,deep,dim,dodger,drab,firebrick,
			floral,forest,frosted,gainsboro,ghost,goldenrod,green,grey,honeydew,hot,indian,ivory,khaki,lace,
			lavender,lawn,lemon,light,lime,linen,magenta,maroon,medium,metallic,midnight,mint,misty,moccasin,
			navajo,navy,olive,orange,orchid,pale,papaya,peach,peru,pink,plum,powder,puff,purple,red,rose,rosy,
			royal,saddle,salmon,sandy,seashell,sienna,sky,slate,smoke,snow,spring,steel,tan,thistle,tomato,
			turquoise,violet,wheat,white,yellow}'::text[] AS colours) AS p,
		LATERAL (SELECT CASE planted WHEN 1 THEN 23 WHEN 2 THEN 12 WHEN 3 THEN 23 WHEN 4 THEN 34
			ELSE 11 + 10 * tpch_pick(k, 32, 5) + tpch_pick(k, 33, 5) END AS brand OFFSET 0) AS b;

INSERT INTO partsupp
	SELECT k, tpch_supplier_of(k, nth), 1 + tpch_pick(k * 4 + nth, 41, 9999),
		1 + tpch_pick(k * 4 + nth, 42, 99901) / 100.0, 'part and supplier'
	FROM generate_series(1, {{parts}}) AS k, generate_series(0, 3) AS nth;

INSERT INTO customer
	SELECT k, 'Customer#' || lpad(k::text, 9, '0'), 'avenue ' || k, nation, tpch_phone(nation, k),
		tpch_pick(k, 52, 1099999) / 100.0 - 999.99,
		tpch_of('{AUTOMOBILE,BUILDING,FURNITURE,HOUSEHOLD,MACHINERY}', k, 53), 'customer ' || k
	FROM generate_series(1, {{customers}}) AS k,
		LATERAL (SELECT tpch_pick(k, 51, 25) AS nation OFFSET 0) AS c;

-- A third of the customers has no orders.
CREATE FUNCTION tpch_order_date(key bigint) RETURNS date LANGUAGE sql IMMUTABLE
	RETURN date '1992-01-01' + tpch_pick(key, 61, 2406);

CREATE FUNCTION tpch_lineitem(first bigint, last bigint) RETURNS SETOF lineitem LANGUAGE sql STABLE AS $$
	SELECT k, part, tpch_supplier_of(part, tpch_pick(id, 74, 4)), n::integer, quantity,
		quantity * tpch_price(part) / 100.0, tpch_pick(id, 75, 11) / 100.0, tpch_pick(id, 76, 9) / 100.0,
		CASE WHEN received > date '1995-06-17' THEN 'N' WHEN tpch_pick(id, 77, 2) = 0 THEN 'R' ELSE 'A' END,
		CASE WHEN shipped > date '1995-06-17' THEN 'O' ELSE 'F' END,
		shipped, ordered + 30 + tpch_pick(id, 78, 61), received,
		tpch_of('{DELIVER IN PERSON,COLLECT COD,NONE,TAKE BACK RETURN}', id, 79),
		tpch_of('{REG AIR,AIR,RAIL,SHIP,TRUCK,MAIL,FOB}', id, 80), 'line ' || n
	FROM (SELECT k, n, k * 8 + n AS id, tpch_order_date(k) AS ordered, k % ({{orders}} / 50) = 7 AS planted
			FROM generate_series(first, last) AS k, generate_series(1, 7) AS n
			OFFSET 0) AS l,
		LATERAL (SELECT 1 + tpch_pick(id, 71, {{parts}}) AS part,
			ordered + 1 + tpch_pick(id, 72, 121) AS shipped,
			CASE WHEN planted THEN 44 + tpch_pick(id, 73, 7) ELSE 1 + tpch_pick(id, 73, 50) END AS quantity
			OFFSET 0) AS a,
		LATERAL (SELECT shipped + 1 + tpch_pick(id, 81, 30) AS received OFFSET 0) AS b
	WHERE planted OR n <= 1 + tpch_pick(k, 70, 7)
$$;

-- Their lines are looked up in lineitem.
CREATE FUNCTION tpch_orders(first bigint, last bigint) RETURNS SETOF orders LANGUAGE sql STABLE AS $$
	SELECT l_orderkey, 3 * tpch_pick(l_orderkey, 62, {{customers}} / 3) + 1 + tpch_pick(l_orderkey, 63, 2),
		CASE WHEN min(l_linestatus) = 'O' THEN 'O' WHEN max(l_linestatus) = 'F' THEN 'F' ELSE 'P' END,
		round(sum(l_extendedprice * (1 + l_tax) * (1 - l_discount)), 2), tpch_order_date(l_orderkey),
		tpch_of('{1-URGENT,2-HIGH,3-MEDIUM,4-NOT SPECIFIED,5-LOW}', l_orderkey, 64),
		'Clerk#' || lpad((1 + tpch_pick(l_orderkey, 65, {{clerks}}))::text, 9, '0'), 0,
		CASE WHEN tpch_pick(l_orderkey, 66, 100) = 0 THEN 'a special one of many requests' ELSE 'order' END
	FROM lineitem
	WHERE l_orderkey BETWEEN first AND last
	GROUP BY l_orderkey
$$;

INSERT INTO lineitem SELECT * FROM tpch_lineitem(1, {{orders}});
INSERT INTO orders SELECT * FROM tpch_orders(1, {{orders}});
