"""A client that writes a row every 10 ms through libpq, and tells what became of each.

    libpq.py held|each CONNINFO FIRST_ID

`held` keeps one connection, psycopg's asynchronous one, until a statement fails on it. `each` takes a new connection
for every row, over libpq's own blocking connect. A statement may take 2 s; after a connect that failed there is a
pause of 50 ms.

Prints for each attempt the nanoseconds of CLOCK_REALTIME, `written` and the server's address, or
`failed` and the SQLSTATE or a text. Ends with its standard input, so that it never outlives its owner.
"""

import asyncio
import itertools
import os
import select
import sys
import threading
import time

import psycopg
from psycopg import pq

EVERY = 0.010
DEADLINE = 2.0
PAUSE = 0.050

INSERT = "INSERT INTO writes (id) VALUES ({}) RETURNING host(inet_server_addr())"


def tell(outcome, detail):
    detail = " ".join(str(detail).split())[:100]
    print(time.time_ns(), outcome, detail, flush=True)


def ticks():
    """The time until the next row is due, again and again; rows that are overdue are left out."""
    due = time.monotonic()
    while True:
        due = max(due + EVERY, time.monotonic())
        yield max(0.0, due - time.monotonic())


async def held(conninfo, numbers):
    connection = None
    for wait, number in zip(ticks(), numbers):
        await asyncio.sleep(wait)
        try:
            if connection is None:
                connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
            statement = connection.execute(INSERT.format(number))
            cursor = await asyncio.wait_for(statement, DEADLINE)
            tell("written", (await cursor.fetchone())[0])
        except asyncio.TimeoutError:
            tell("failed", "no answer")
            await connection.close()
            connection = None
        except psycopg.Error as error:
            if connection is None:
                tell("failed", error.sqlstate or "no connection")
                await asyncio.sleep(PAUSE)
            else:
                tell("failed", error.sqlstate or "connection lost")
                await connection.close()
                connection = None


def each(conninfo, numbers):
    for wait, number in zip(ticks(), numbers):
        time.sleep(wait)
        connection = pq.PGconn.connect(conninfo.encode())
        if connection.status != pq.ConnStatus.OK:
            tell("failed", "no connection")
            connection.finish()
            time.sleep(PAUSE)
            continue
        tell(*write(connection, INSERT.format(number)))
        connection.finish()


def write(connection, statement):
    connection.send_query(statement.encode())
    deadline = time.monotonic() + DEADLINE
    while connection.is_busy():
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([connection.socket], [], [], left)[0]:
            return "failed", "no answer"
        try:
            connection.consume_input()
        except psycopg.Error:
            return "failed", "connection lost"
    result = connection.get_result()
    if result is None:
        return "failed", "connection lost"
    if result.status == pq.ExecStatus.TUPLES_OK:
        return "written", result.get_value(0, 0).decode()
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return "failed", state.decode() if state else "connection lost"


def end_with_input():
    sys.stdin.buffer.read()
    os._exit(0)


def main():
    how, conninfo, first = sys.argv[1:]
    threading.Thread(target=end_with_input, daemon=True).start()
    numbers = itertools.count(int(first))
    if how == "held":
        asyncio.run(held(conninfo, numbers))
    else:
        each(conninfo, numbers)


main()
