package s3

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// prepare makes, at a moto server, a bucket, a user who may only assume a
// role, and a role that may only do what docs/s3.md says a sink needs; from
// then on moto holds everybody to that. It prints the user's key.
const prepare = `
import boto3, json, sys
url = sys.argv[1]
client = lambda s, **k: boto3.client(s, endpoint_url=url, region_name="us-east-1", **(k or dict(aws_access_key_id="x", aws_secret_access_key="x")))
client("s3").create_bucket(Bucket="lake")
iam = client("iam")
role = iam.create_role(RoleName="drops", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole", "Condition": {"StringEquals": {"sts:ExternalId": "acme-7"}}}]}))["Role"]["Arn"]
iam.put_role_policy(RoleName="drops", PolicyName="drops", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"], "Resource": "arn:aws:s3:::lake/bots/*"},
    {"Effect": "Allow", "Action": ["s3:ListBucketMultipartUploads", "s3:ListBucket"], "Resource": "arn:aws:s3:::lake"}]}))
iam.create_user(UserName="datasync")
iam.put_user_policy(UserName="datasync", PolicyName="assume", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}]}))
key = iam.create_access_key(UserName="datasync")["AccessKey"]
import urllib.request
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}))
print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"], "role": role}))
`

// read lists and reads all objects of the bucket, as the role.
const read = `
import boto3, sys, urllib.request
url, root, key, secret, role = sys.argv[1:]
k = boto3.client("sts", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret).assume_role(
    RoleArn=role, RoleSessionName="read", ExternalId="acme-7")["Credentials"]
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=k["AccessKeyId"],
    aws_secret_access_key=k["SecretAccessKey"], aws_session_token=k["SessionToken"])
import os
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="lake"):
    for o in page.get("Contents", []):
        if ".datasync-probe" in o["Key"]:
            continue
        path = os.path.join(root, o["Key"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        got = s3.get_object(Bucket="lake", Key=o["Key"])
        assert got["Metadata"]["datasync-id"] and got["ContentType"] == "application/gzip", got
        open(path, "wb").write(got["Body"].read())
`

// TestS3AssumeRole: moto enforces the policies of docs/s3.md: the service's
// user may only assume the role, the role may only put below its prefix.
func TestS3AssumeRole(t *testing.T) {
	servers.Credentials(t)
	t.Setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1000")
	url := servers.NewMoto(t)
	var user struct{ ID, Secret, Role string }
	python(t, &user, prepare, url)
	t.Setenv("AWS_ACCESS_KEY_ID", user.ID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", user.Secret)

	s := harness.NewService(t, "")
	const n = 500
	sink := func(name, prefix, role string) string {
		return fmt.Sprintf("  - name: %s\n    s3: {bucket: lake, prefix: %s, region: us-east-1, endpoint: %q, path_style: true%s}\n    deliver: {max_age: 1s, max_events: 100}\n",
			name, prefix, url, role)
	}
	role := fmt.Sprintf(", role_arn: %q, external_id: acme-7", user.Role)
	s.Tenants(1, sink("lake", "bots", role)+sink("elsewhere", "other", role)+sink("alone", "bots", ""))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "7", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	becomes(t, s, "t0001/elsewhere", "parked", "forbidden")
	becomes(t, s, "t0001/alone", "parked", "forbidden")
	harness.Until(t, time.Minute, "delivery as the role", func() bool {
		l, _ := s.Ledger()
		for _, k := range l.Sinks {
			if k.Sink == "lake" {
				return k.Delivered == n
			}
		}
		return false
	})
	s.End(false)
	root := t.TempDir()
	python(t, nil, read, url, root, user.ID, user.Secret, user.Role)
	harness.Drops(t, root, "lake").Want(t, "moto", 7, n, true)
	if ids := harness.Drops(t, root, "elsewhere"); len(ids) != 0 {
		t.Errorf("%d events are where the role may not put", len(ids))
	}
}
