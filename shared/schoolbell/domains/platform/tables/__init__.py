"""The tables of the schema `platform` by subject: a job that declares only those it needs starts sooner."""
