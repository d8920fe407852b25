-- Why a node did not do its part, and the values of a job's parameters: a JSON array of [name, value].
ALTER TABLE job_nodes ADD COLUMN reason_code TEXT;
ALTER TABLE job_nodes ADD COLUMN reason_text TEXT;
ALTER TABLE job_options ADD COLUMN parameters TEXT;
