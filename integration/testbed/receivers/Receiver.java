import java.io.ByteArrayInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * A receiver of lines by JSSE, as a Java program would have it:
 * java Receiver.java PORT CERT KEY CA OUT. It demands a client's certificate.
 * What was read is in the file before more is read.
 */
public class Receiver {
    public static void main(String[] args) throws Exception {
        SSLContext tls = context(args[1], args[2], args[3]);
        FileOutputStream out = new FileOutputStream(args[4], true);
        SSLServerSocket door = (SSLServerSocket) tls.getServerSocketFactory()
                .createServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getByName("127.0.0.1"));
        door.setNeedClientAuth(true);
        while (true) {
            SSLSocket peer = (SSLSocket) door.accept();
            new Thread(() -> serve(peer, out)).start();
        }
    }

    static void serve(SSLSocket peer, FileOutputStream out) {
        try (peer) {
            InputStream in = peer.getInputStream();
            byte[] buffer = new byte[1 << 16];
            byte[] rest = new byte[0];
            for (int n; (n = in.read(buffer)) >= 0; ) {
                byte[] all = new byte[rest.length + n];
                System.arraycopy(rest, 0, all, 0, rest.length);
                System.arraycopy(buffer, 0, all, rest.length, n);
                int end = all.length;
                while (end > 0 && all[end - 1] != '\n') {
                    end--;
                }
                synchronized (out) {
                    out.write(all, 0, end);
                }
                rest = java.util.Arrays.copyOfRange(all, end, all.length);
            }
        } catch (IOException e) {
            System.err.println(e);
        }
    }

    static SSLContext context(String cert, String key, String ca) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null);
        PrivateKey secret = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder()
                .decode(Files.readString(Path.of(key)).replaceAll("-----[A-Z ]+-----", ""))));
        own.setKeyEntry("own", secret, new char[0], new Certificate[] {certificate(cert)});
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);
        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null);
        roots.setCertificateEntry("ca", certificate(ca));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return tls;
    }

    static Certificate certificate(String file) throws Exception {
        return CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(Files.readAllBytes(Path.of(file))));
    }
}
