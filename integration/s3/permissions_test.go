package s3

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// policies makes a bucket, a role that may put below bots/, a user who may
// assume it and put below own/, and an administrator; from then on moto holds
// everybody to that.
const policies = `
import boto3, json, sys, urllib.request
url = sys.argv[1]
client = lambda s: boto3.client(s, endpoint_url=url, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
client("s3").create_bucket(Bucket="lake")
iam = client("iam")
allow = lambda *what: json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": a, "Resource": r} for a, r in what]})
role = iam.create_role(RoleName="drops", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}))["Role"]["Arn"]
iam.put_role_policy(RoleName="drops", PolicyName="drops", PolicyDocument=allow((["s3:PutObject", "s3:GetObject"], "arn:aws:s3:::lake/bots/*")))
keys = {}
for name, policy in (("datasync", allow(("sts:AssumeRole", role), (["s3:PutObject", "s3:GetObject"], "arn:aws:s3:::lake/own/*"))), ("admin", allow(("*", "*")))):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
    k = iam.create_access_key(UserName=name)["AccessKey"]
    keys[name] = {"id": k["AccessKeyId"], "secret": k["SecretAccessKey"]}
urllib.request.urlopen(urllib.request.Request(url + "/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}))
print(json.dumps({"user": keys["datasync"], "admin": keys["admin"], "role": role}))
`

// asAdmin begins a script of the administrator's.
const asAdmin = `
import boto3, json, sys
client = lambda s: boto3.client(s, endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])
iam = client("iam")
`

// TestFaultPermissions: a role loses its right, the service's key is deleted;
// both sinks park and keep everything, and go on without a restart when the
// right is back and another key is in the file.
func TestFaultPermissions(t *testing.T) {
	const seed, n = 71, 300
	servers.Credentials(t)
	t.Setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1000")
	url := servers.NewMoto(t)
	type key struct{ ID, Secret string }
	var who struct {
		User, Admin key
		Role        string
	}
	python(t, &who, policies, url)
	file := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	use := func(k key) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", k.ID, k.Secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	admin := func(into any, script string, more ...string) {
		t.Helper()
		python(t, into, asAdmin+script, append([]string{url, who.Admin.ID, who.Admin.Secret}, more...)...)
	}
	use(who.User)
	s := harness.NewService(t, "")
	at := fmt.Sprintf("bucket: lake, region: us-east-1, endpoint: %q, path_style: true", url)
	s.Tenants(1, fmt.Sprintf(`  - name: role
    s3: {prefix: bots, role_arn: %q, %[2]s}
    deliver: {max_age: 1s}
  - name: own
    s3: {prefix: own, %[2]s}
    deliver: {max_age: 1s}
`, who.Role, at))
	load := func(part int) {
		t.Helper()
		harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", fmt.Sprint(seed+part), "--to", filepath.Join(s.Dir, "in", fmt.Sprintf("%d.ndjson", part)))
	}
	load(0)
	s.Up(30 * time.Second)
	s.Delivered(n, time.Minute)

	var next key
	admin(&next, `
iam.delete_role_policy(RoleName="drops", PolicyName="drops")
k = iam.create_access_key(UserName="datasync")["AccessKey"]
iam.delete_access_key(UserName="datasync", AccessKeyId=sys.argv[4])
print(json.dumps({"id": k["AccessKeyId"], "secret": k["SecretAccessKey"]}))
`, who.User.ID)
	load(1)
	becomes(t, s, "t0001/role", "parked", "forbidden")
	becomes(t, s, "t0001/own", "parked", "auth")
	use(next)
	becomes(t, s, "t0001/own", "running", "")
	admin(nil, `
iam.put_role_policy(RoleName="drops", PolicyName="drops", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject"], "Resource": "arn:aws:s3:::lake/bots/*"}]}))
`)
	l := s.Delivered(2*n, 2*time.Minute)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	s.End(false)
	root := t.TempDir()
	admin(nil, `
import os
s3 = client("s3")
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="lake"):
    for o in page.get("Contents", []):
        if ".datasync-probe" in o["Key"]:
            continue
        path = os.path.join(sys.argv[4], o["Key"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "wb").write(s3.get_object(Bucket="lake", Key=o["Key"])["Body"].read())
`, root)
	for _, sink := range []string{"role", "own"} {
		ids := harness.Drops(t, root, sink)
		for part := range 2 {
			ids.Of(seed+part).Want(t, sink, seed+part, n, true)
		}
	}
	t.Logf("seed %d: a right taken away and given back, a key deleted and replaced in its file; %d events to two sinks: lost 0, repeated 0, no restart", seed, 2*n)
}
