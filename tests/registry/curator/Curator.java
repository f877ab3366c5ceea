import java.util.HashMap;
import java.util.Map;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryOneTime;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.UriSpec;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;
import org.apache.curator.x.discovery.details.ServiceCacheListener;

/** What a program on the JVM sees through Apache Curator, and registers. Ends with its stdin. */
public class Curator {
    /** Arguments: servers, base path, then "watch CLASS SERVICE" or "register SERVICE". */
    public static void main(String[] words) throws Exception {
        CuratorFramework client =
            CuratorFrameworkFactory.newClient(words[0], new RetryOneTime(1000));
        client.start();
        if (words[2].equals("watch")) {
            watch(client, words[1], Class.forName(words[3]), words[4]);
        } else {
            register(client, words[1], words[3]);
        }
        while (System.in.read() >= 0) { }
        client.close();
    }

    /** Print what the cache holds, at once and after each change. */
    static <T> void watch(CuratorFramework client, String base, Class<T> payload, String service)
            throws Exception {
        ServiceDiscovery<T> discovery =
            ServiceDiscoveryBuilder.builder(payload).client(client).basePath(base).build();
        discovery.start();
        ServiceCache<T> cache = discovery.serviceCacheBuilder().name(service).build();
        cache.addListener(new ServiceCacheListener() {
            public void cacheChanged() {
                print(cache);
            }

            public void stateChanged(CuratorFramework same, ConnectionState state) { }
        });
        cache.start();
        print(cache);
    }

    static synchronized <T> void print(ServiceCache<T> cache) {
        StringBuilder line = new StringBuilder("cache");
        for (ServiceInstance<T> each : cache.getInstances()) {
            line.append(String.format(" [%s %s %s:%s %s %s %d %s %s]", each.getName(), each.getId(),
                each.getAddress(), each.getPort(), each.isEnabled(), each.buildUriSpec(),
                each.getRegistrationTimeUTC(), each.getServiceType(), each.getPayload()));
        }
        System.out.println(line);
        System.out.flush();
    }

    static void register(CuratorFramework client, String base, String service) throws Exception {
        Map<String, Object> payload = new HashMap<>(Map.of("team", "jvm", "size", 3));
        ServiceInstance<Map> plain = ServiceInstance.<Map>builder().name(service)
            .id("A1:b2").address("10.0.0.7").port(80).payload(payload)
            .registrationTimeUTC(1763884800500L).uriSpec(new UriSpec("{scheme}://{address}:{port}"))
            .build();
        ServiceInstance<Map> secure = ServiceInstance.<Map>builder().name(service)
            .id("secure").address("10.0.0.8").sslPort(443).enabled(false).build();
        ServiceDiscovery<Map> discovery =
            ServiceDiscoveryBuilder.builder(Map.class).client(client).basePath(base)
                // By default "enabled" is not written, for Curators that don't know it.
                .serializer(new JsonInstanceSerializer<>(Map.class, false)).build();
        discovery.start();
        discovery.registerService(plain);
        discovery.registerService(secure);
        System.out.println("registered");
        System.out.flush();
    }
}
