#!/usr/bin/env bash
# Apache Kafka itself: one node, KRaft, from the jars of Maven Central.
#   kafka.sh install          fetches the jars (Java 17 and Maven are needed); quick when they are there
#   kafka.sh run DIR PORT VIA a broker at 127.0.0.1:PORT (and PORT+1) with its data in DIR, until it is killed;
#                             the process is the broker's, so that its id is the script's. Who comes to PORT+2
#                             is told that the broker is at VIA (host:port), where a proxy before it may be
#   kafka.sh topic PORT NAME PARTITIONS   creates a topic
set -euo pipefail
VERSION=4.1.0
BED=${KAFKA_BED:-$(cd "$(dirname "$0")/.." && pwd)/.kafka}
LIBS=$BED/$VERSION

# as_root runs a command as root, where that is possible.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# java_run CLASS ARGS... replaces this process.
java_run() {
	exec java -Xms192m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
		-Dlog4j2.configurationFile="$LIBS/log4j2.properties" -cp "$LIBS/*" "$@"
}

install() {
	[ -f "$LIBS/complete" ] && return
	local missing=()
	command -v java >/dev/null || missing+=(openjdk-17-jre-headless)
	command -v mvn >/dev/null || missing+=(maven)
	if [ ${#missing[@]} -gt 0 ]; then
		as_root apt-get update -q -o DPkg::Lock::Timeout=600
		as_root apt-get install -qy -o DPkg::Lock::Timeout=600 --no-install-recommends "${missing[@]}"
	fi
	mkdir -p "$LIBS"
	cat >"$LIBS/pom.xml" <<-P
		<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
		  <groupId>datasync</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
		  <dependencies>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$VERSION</version></dependency>
		    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
		    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
		  </dependencies></project>
	P
	cat >"$LIBS/log4j2.properties" <<-'P'
		status = error
		rootLogger.level = warn
		rootLogger.appenderRef.c.ref = C
		appender.c.type = Console
		appender.c.name = C
		appender.c.layout.type = PatternLayout
		appender.c.layout.pattern = [%d] %p %m (%c)%n
	P
	mvn -q -B -f "$LIBS/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$LIBS"
	touch "$LIBS/complete"
	echo "Kafka $VERSION: $(ls "$LIBS"/*.jar | wc -l) jars in $LIBS"
}

run() {
	local dir=$1 port=$2 via=$3
	[ -f "$LIBS/complete" ] || { echo "no Kafka in $LIBS: kafka.sh install (task brokers)" >&2 && exit 1; }
	mkdir -p "$dir"
	cat >"$dir/server.properties" <<-P
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$((port + 1))
		controller.listener.names=CONTROLLER
		listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1)),VIA://127.0.0.1:$((port + 2))
		advertised.listeners=PLAINTEXT://127.0.0.1:$port,VIA://$via
		listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,VIA:PLAINTEXT
		inter.broker.listener.name=PLAINTEXT
		log.dirs=$dir/data
		auto.create.topics.enable=false
		offsets.topic.replication.factor=1
		offsets.topic.num.partitions=4
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		transaction.state.log.num.partitions=4
		share.coordinator.state.topic.replication.factor=1
		share.coordinator.state.topic.min.isr=1
		group.initial.rebalance.delay.ms=0
		log.retention.check.interval.ms=500
		log.initial.task.delay.ms=500
		num.io.threads=2
		num.network.threads=2
		num.recovery.threads.per.data.dir=1
	P
	if [ ! -f "$dir/data/meta.properties" ]; then
		(java_run kafka.tools.StorageTool format -t datasyncdatasyncdatasy -c "$dir/server.properties")
	fi
	java_run kafka.Kafka "$dir/server.properties"
}

case ${1:-} in
install) install ;;
run) run "$2" "$3" "$4" ;;
topic) java_run org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$2" --create --topic "$3" --partitions "$4" ;;
*) echo "usage: kafka.sh install | run DIR PORT VIA | topic PORT NAME PARTITIONS" >&2 && exit 2 ;;
esac
