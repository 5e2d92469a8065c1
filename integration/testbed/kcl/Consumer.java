import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AnonymousCredentialsProvider;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.dynamodb.model.AttributeDefinition;
import software.amazon.awssdk.services.dynamodb.model.BillingMode;
import software.amazon.awssdk.services.dynamodb.model.GlobalSecondaryIndex;
import software.amazon.awssdk.services.dynamodb.model.KeySchemaElement;
import software.amazon.awssdk.services.dynamodb.model.KeyType;
import software.amazon.awssdk.services.dynamodb.model.ProjectionType;
import software.amazon.awssdk.services.dynamodb.model.ScalarAttributeType;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.StreamConfig;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.FormerStreamsLeasesDeletionStrategy;
import software.amazon.kinesis.processor.MultiStreamTracker;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.ShardRecordProcessorFactory;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * Reads Kinesis streams with the Kinesis Client Library, from their beginning,
 * until its standard input ends.
 *
 * <p>Consumer KINESIS-URL DYNAMODB-URL STREAM... prints, with tabs between:
 *
 * <pre>
 * kcl VERSION
 * record STREAM SHARD SEQUENCE SUBSEQUENCE PARTITION-KEY DATA   each user record
 * end USER-RECORDS                                              after an orderly stop
 * </pre>
 *
 * <p>All unpacking of aggregated records is the library's: its records share a
 * sequence number there and count in their subsequence numbers.
 */
final class Consumer {
    private static final OutputStream OUT =
            new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 20);
    private static final String APPLICATION = "datasync"; // names the table of leases too
    private static long records; // guarded by OUT

    public static void main(String[] args) throws Exception {
        line("kcl\t" + RetrievalConfig.KINESIS_CLIENT_LIB_USER_AGENT_VERSION);
        Scheduler scheduler = scheduler(args[0], args[1], List.of(args).subList(2, args.length));
        Thread worker = new Thread(scheduler, "scheduler");
        worker.start();
        while (System.in.read() >= 0) {
            // The parent says nothing; it closes the pipe, at its own death too.
        }
        scheduler.startGracefulShutdown().get(60, TimeUnit.SECONDS);
        worker.join(10_000);
        synchronized (OUT) {
            line("end\t" + records);
        }
        System.exit(0); // the clients' threads would stay
    }

    private static Scheduler scheduler(String kinesisUrl, String dynamoUrl, List<String> streams) {
        var keys = StaticCredentialsProvider.create(AwsBasicCredentials.create("reader", "secret"));
        var kinesis = KinesisAsyncClient.builder()
                .region(Region.EU_WEST_1)
                .credentialsProvider(keys)
                .endpointOverride(URI.create(kinesisUrl))
                // The client's own choice is HTTP/2, for fan-out.
                .httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1).maxConcurrency(200))
                .build();
        var dynamo = DynamoDbAsyncClient.builder()
                .region(Region.EU_WEST_1)
                .credentialsProvider(keys)
                .endpointOverride(URI.create(dynamoUrl))
                .build();
        makeLeases(dynamo);
        var cloudWatch = CloudWatchAsyncClient.builder() // never called: metrics are off
                .region(Region.EU_WEST_1)
                .credentialsProvider(AnonymousCredentialsProvider.create())
                .endpointOverride(URI.create(dynamoUrl))
                .build();
        var configs = new ConfigsBuilder(
                new Streams(streams), APPLICATION, kinesis, dynamo, cloudWatch, "worker", new Printers());
        var polling = new PollingConfig(kinesis).idleTimeBetweenReadsInMillis(1_000).usePollingConfigIdleTimeValue(true);
        return new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig(),
                // The interval is what the first look at the streams sleeps after each of them.
                configs.leaseManagementConfig().failoverTimeMillis(5_000).shardSyncIntervalMillis(10),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
    }

    /**
     * Makes the table of leases as the library would, which takes one that is
     * there. It makes the table first and the index later, and dynalite adds no
     * index to a table.
     */
    private static void makeLeases(DynamoDbAsyncClient dynamo) {
        var byOwner = GlobalSecondaryIndex.builder()
                .indexName("LeaseOwnerToLeaseKeyIndex")
                .keySchema(key("leaseOwner", KeyType.HASH), key("leaseKey", KeyType.RANGE))
                .projection(p -> p.projectionType(ProjectionType.KEYS_ONLY))
                .build();
        dynamo.createTable(table -> table.tableName(APPLICATION)
                        .billingMode(BillingMode.PAY_PER_REQUEST)
                        .attributeDefinitions(text("leaseKey"), text("leaseOwner"))
                        .keySchema(key("leaseKey", KeyType.HASH))
                        .globalSecondaryIndexes(byOwner))
                .join();
    }

    private static AttributeDefinition text(String name) {
        return AttributeDefinition.builder()
                .attributeName(name)
                .attributeType(ScalarAttributeType.S)
                .build();
    }

    private static KeySchemaElement key(String name, KeyType type) {
        return KeySchemaElement.builder().attributeName(name).keyType(type).build();
    }

    private static void line(String text) throws IOException {
        synchronized (OUT) {
            OUT.write(text.getBytes(StandardCharsets.UTF_8));
            OUT.write('\n');
            OUT.flush();
        }
    }

    /** The streams to read, all by one worker. */
    private static final class Streams implements MultiStreamTracker {
        private final List<StreamConfig> configs = new ArrayList<>();

        Streams(List<String> names) {
            for (String name : names) {
                configs.add(new StreamConfig(
                        StreamIdentifier.multiStreamInstance("000000000000:" + name + ":1"),
                        InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON)));
            }
        }

        @Override
        public List<StreamConfig> streamConfigList() {
            return configs;
        }

        @Override
        public FormerStreamsLeasesDeletionStrategy formerStreamsLeasesDeletionStrategy() {
            return new FormerStreamsLeasesDeletionStrategy.NoLeaseDeletionStrategy();
        }
    }

    private static final class Printers implements ShardRecordProcessorFactory {
        @Override
        public ShardRecordProcessor shardRecordProcessor() {
            throw new UnsupportedOperationException("of which stream?");
        }

        @Override
        public ShardRecordProcessor shardRecordProcessor(StreamIdentifier stream) {
            return new Printer(stream.streamName());
        }
    }

    /** Prints a shard's records. */
    private static final class Printer implements ShardRecordProcessor {
        private final String stream;
        private String shard;

        Printer(String stream) {
            this.stream = stream;
        }

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            try {
                synchronized (OUT) {
                    for (KinesisClientRecord r : input.records()) {
                        String head = String.join("\t", "record", stream, shard, r.sequenceNumber(),
                                Long.toString(r.subSequenceNumber()), r.partitionKey(), "");
                        OUT.write(head.getBytes(StandardCharsets.UTF_8));
                        byte[] data = new byte[r.data().remaining()];
                        r.data().get(data);
                        OUT.write(data);
                        OUT.write('\n');
                        records++;
                    }
                    OUT.flush();
                }
            } catch (IOException e) {
                throw new IllegalStateException("nobody reads what is printed", e);
            }
            checkpoint(input.checkpointer());
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer());
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(input.checkpointer());
        }

        private static void checkpoint(RecordProcessorCheckpointer to) {
            try {
                to.checkpoint();
            } catch (ShutdownException | InvalidStateException e) {
                System.err.println("no checkpoint: " + e);
            }
        }
    }
}
