"""Data like TPC-H's, made by Spark of numbers alone, and queries like its own. Sums are of decimals: order does not matter."""

# The columns of each table, with the numbers of rows of the others, and how many rows it has in each unit of scale.
NAMES = {
    "nation": ("id as n_key, concat('nation-', id) as n_name, id % 5 as n_region", 25),
    "customer": ("id as c_key, (id * 7) % 25 as c_nation, concat('segment-', id % 5) as c_segment", 15),
    "orders": (
        "id as o_key, (id * 13) % {customer} as o_customer, concat('priority-', id % 5) as o_priority,"
        " date_add(date'1992-01-01', cast((id * 17) % 2400 as int)) as o_date", 150,
    ),
    "lineitem": (
        "id as l_key, (id * 31) % {orders} as l_order, cast((id * 11) % 50 + 1 as decimal(12, 2)) as l_quantity,"
        " cast((id * 9973) % 100000 / 7 as decimal(12, 2)) as l_price, cast((id % 11) / 100 as decimal(12, 2)) as l_discount,"
        " substr('ANR', cast(id % 3 as int) + 1, 1) as l_returned, repeat(sha(cast(id as string)), 2) as l_comment,"
        " date_add(date'1992-01-01', cast((id * 17) % 2400 + id % 120 as int)) as l_shipped", 600,
    ),
}

QUERIES = {
    "pricing": """select l_returned, count(*), sum(l_quantity), sum(l_price), sum(l_price * (1 - l_discount)), max(l_comment)
                  from lineitem where l_shipped <= date'1998-08-01' group by l_returned order by 1""",
    "priority": """select l_order, sum(l_price * (1 - l_discount)) as revenue, o_date from customer, orders, lineitem
                   where c_segment = 'segment-1' and c_key = o_customer and l_order = o_key and o_date < date'1995-03-15'
                   and l_shipped > date'1995-03-15' group by l_order, o_date order by revenue desc, l_order limit 10""",
    "nations": """select n_name, sum(l_price * (1 - l_discount)) from nation, customer, orders, lineitem
                  where n_key = c_nation and c_key = o_customer and o_key = l_order and n_region = 2
                  group by n_name order by 1""",
    "forecast": """select sum(l_price * l_discount) from lineitem where year(l_shipped) = 1994
                   and l_discount between 0.05 and 0.07 and l_quantity < 24""",
    "late": """select o_priority, count(*) from orders where o_date >= date'1993-07-01' and exists
               (select * from lineitem where l_order = o_key and l_shipped > o_date) group by o_priority order by 1""",
    "large": """select o_key, sum(l_quantity) as quantity from orders, lineitem where o_key = l_order group by o_key
                having sum(l_quantity) > 100 order by quantity desc, o_key limit 20""",
}


def write(spark, directory, scale, **options):
    rows = {name: max(25, int(count * scale)) for name, (_, count) in NAMES.items()}
    for name, (columns, _) in NAMES.items():
        data = spark.range(rows[name]).selectExpr(*split(columns.format(**rows)))
        data.write.options(**options).mode("overwrite").parquet(f"{directory}/{name}")


def split(columns):
    """At the commas outside of parentheses and strings."""
    found, depth, quoted, last = [], 0, False, 0
    for at, sign in enumerate(columns):
        quoted ^= sign == "'"
        depth += (sign == "(") - (sign == ")") if not quoted else 0
        if sign == "," and depth == 0 and not quoted:
            found.append(columns[last:at])
            last = at + 1
    return [*found, columns[last:]]


def answers(spark, directory, queries):
    """What each query says of the tables of a directory."""
    for name in NAMES:
        spark.read.parquet(f"{directory}/{name}").createOrReplaceTempView(name)
    said = {name: [tuple(row) for row in spark.sql(QUERIES[name]).collect()] for name in queries}
    for name, rows in said.items():
        assert rows and rows[0][-1] is not None, f"the query {name} has no result, which proves nothing"
    return said
