// Sends samples to a topic from Java, by the layout in docs/kafka.md: three numbers and their unit, and the sum of the
// numbers. Needs a JDK 17 or newer, and the jars of Kafka's clients, which tools/kafka_broker.py has fetched:
//
//     java -cp "$HOME/.cache/experiments_manager/kafka-4.1.1/*" examples/streaming/Producer.java localhost:9092 sums.train 1000

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.*;
import java.util.concurrent.ExecutionException;
import java.util.zip.CRC32;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Producer {
    static final byte[] STRUCTURE = ("{'format':1,'nest':{'tuple':[{'dict':[['numbers',0],['unit',1]]},2]},'leaves':["
            + "{'name':'x/numbers','dtype':'float32','shape':[3]},{'name':'x/unit','dtype':'string','shape':[]},"
            + "{'name':'y','dtype':'float32','shape':[]}]}").replace('\'', '"').getBytes();

    static byte[] record(int id, float[] numbers, byte[] unit, float sum) {
        ByteBuffer record = ByteBuffer.allocate(32 + unit.length).order(ByteOrder.LITTLE_ENDIAN);
        record.put((byte) 0xE5).put((byte) 1).putShort((short) 1).putInt(id); // one sample
        record.putInt(unit.length); // the table of sizes has one varying column: the bytes of the strings
        for (float number : numbers) record.putFloat(number);
        record.putInt(unit.length).putFloat(sum); // the length of the one string, then the target
        return record.put(unit).array();
    }

    static void create(Admin admin, NewTopic topic) throws Exception {
        try {
            admin.createTopics(List.of(topic)).all().get();
        } catch (ExecutionException error) {
            if (!(error.getCause() instanceof TopicExistsException)) throw error;
        }
    }

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1], structures = topic + ".structure";
        Map<String, Object> options = Map.of("bootstrap.servers", arguments[0], "linger.ms", 20);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            create(admin, new NewTopic(topic, Optional.of(2), Optional.empty()));
            create(admin, new NewTopic(structures, Optional.of(1), Optional.empty())
                    .configs(Map.of("cleanup.policy", "compact")));
        }
        CRC32 crc = new CRC32();
        crc.update(STRUCTURE);
        int id = (int) crc.getValue();
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<byte[], byte[]>(options, bytes, bytes)) {
            producer.send(new ProducerRecord<>(structures, String.format("%08x", id).getBytes(), STRUCTURE)).get();
            for (int i = 0; i < Integer.parseInt(arguments[2]); i++) {
                byte[] unit = (i % 2 == 0 ? "m" : "km").getBytes();
                producer.send(new ProducerRecord<>(topic, record(id, new float[] {i, 1, 0.5f}, unit, i + 1.5f)));
            }
        }
    }
}
