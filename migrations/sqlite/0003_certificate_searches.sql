-- A search walks one index in the order of its answer, and finds there what its conditions say, whatever they are. Certificates of
-- one issuer, version and profile are of one family, and there are few families: a search that leaves one of these open merges them.
DROP INDEX certificates_by_issuer;
DROP INDEX certificates_by_profile;
DROP INDEX certificates_by_requester;

-- Newest first: each index ends with the number.
CREATE INDEX certificates_by_family ON certificates (issuer, version, profile);
CREATE INDEX certificates_by_requester ON certificates (requester, issuer, version, profile);
-- The one that ends soonest first.
CREATE INDEX certificates_by_family_and_end ON certificates (issuer, version, profile, not_after);
CREATE INDEX certificates_by_requester_and_end ON certificates (requester, issuer, version, profile, not_after);
