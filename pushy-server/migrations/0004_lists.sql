-- Pages and filters of the job list, and what retention deletes. Commands may be long: their beginnings are indexed.
DROP INDEX jobs_by_org;
CREATE INDEX jobs_by_org ON jobs (org_id, created_at, id);
CREATE INDEX jobs_by_status ON jobs (org_id, status, created_at, id);
CREATE INDEX jobs_by_requester ON jobs (org_id, requester, created_at, id);
CREATE INDEX jobs_by_command ON jobs (org_id, substr(command, 1, 100), created_at, id);
CREATE INDEX jobs_finished ON jobs (updated_at, id) WHERE status NOT IN (0, 1, 5);
CREATE INDEX job_nodes_by_node ON job_nodes (node_name, job_id);
