//! What only a PostgreSQL store meets: refusals, two servers on one database, a database that goes away.
