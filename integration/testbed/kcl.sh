#!/usr/bin/env bash
# The Kinesis Client Library, from the jars of Maven Central, and a consumer on
# it (kcl/Consumer.java).
#   kcl.sh install                          fetches the jars and compiles (Java 17 and Maven are needed); quick when that was done
#   kcl.sh run KINESIS-URL DYNAMODB-URL STREAM...   reads the streams until its input ends; the process is the consumer's
set -euo pipefail
VERSION=3.5.1
HERE=$(cd "$(dirname "$0")" && pwd)
BED=$(dirname "$HERE")/.testbed/kcl

# as_root runs a command as root, where that is possible.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

fetch() {
	[ "$(cat "$BED/complete" 2>/dev/null)" = "$VERSION" ] && return
	local missing=()
	command -v javac >/dev/null || missing+=(openjdk-17-jdk-headless)
	command -v mvn >/dev/null || missing+=(maven)
	if [ ${#missing[@]} -gt 0 ]; then
		as_root apt-get update -q -o DPkg::Lock::Timeout=600
		as_root apt-get install -qy -o DPkg::Lock::Timeout=600 --no-install-recommends "${missing[@]}"
	fi
	rm -rf "$BED"
	mkdir -p "$BED"
	cat >"$BED/pom.xml" <<-P
		<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
		  <groupId>datasync</groupId><artifactId>kcl</artifactId><version>1</version><packaging>pom</packaging>
		  <dependencies>
		    <dependency><groupId>software.amazon.kinesis</groupId><artifactId>amazon-kinesis-client</artifactId><version>$VERSION</version></dependency>
		    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>2.0.13</version></dependency>
		  </dependencies></project>
	P
	mvn -q -B -C -f "$BED/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$BED/jars"
	echo "$VERSION" >"$BED/complete"
	echo "KCL $VERSION: $(ls "$BED"/jars/*.jar | wc -l) jars in $BED"
}

install() {
	fetch
	[ "$BED/classes/Consumer.class" -nt "$HERE/kcl/Consumer.java" ] ||
		javac -nowarn -d "$BED/classes" -cp "$BED/jars/*" "$HERE/kcl/Consumer.java"
}

# run replaces this process. JSON instead of CBOR: kinesalite decodes it faster.
run() {
	exec java -Xms192m -Xmx768m -XX:+UseSerialGC -Daws.cborEnabled=false \
		-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$BED/classes:$BED/jars/*" Consumer "$@"
}

case ${1:-} in
install) install ;;
run) shift && run "$@" ;;
*) echo "usage: kcl.sh install | run KINESIS-URL DYNAMODB-URL STREAM..." >&2 && exit 2 ;;
esac
